// C++ between managed frames: destructors, exceptions.
#include <atomic>
#include <cstdint>
#include <stdexcept>

extern "C" {
std::atomic<uint64_t> destroyed{0};
}

namespace {
struct Counted {
    ~Counted() { ++destroyed; }
};
}

extern "C" uint64_t call_through_destructor(uint64_t (*f)(void *), void *argument) {
    Counted counted;
    return f(argument) + 1;
}

extern "C" uint64_t throw_runtime_error(const char *text) { throw std::runtime_error(text); }

// Catches what comes up, says so, and returns.
extern "C" uint64_t catch_runtime_error(uint64_t (*f)(void *), void *argument) {
    try {
        return f(argument);
    } catch (const std::runtime_error &) {
        return 77;
    }
}
