// C++ between managed frames: destructors, exceptions.
#include <atomic>
#include <cstdint>
#include <stdexcept>

extern "C" {
std::atomic<uintptr_t> destroyed{0};
}

namespace {
struct Counted {
    ~Counted() { ++destroyed; }
};
}

extern "C" uintptr_t call_through_destructor(uintptr_t (*f)(void *), void *argument) {
    Counted counted;
    return f(argument) + 1;
}

extern "C" uintptr_t throw_runtime_error(const char *text) { throw std::runtime_error(text); }

// Catches what comes up, says so, and returns.
extern "C" uintptr_t catch_runtime_error(uintptr_t (*f)(void *), void *argument) {
    try {
        return f(argument);
    } catch (const std::runtime_error &) {
        return 77;
    }
}
