// What a C++ exception may cross: a foreign call, managed frames, a callback. And what unwinding to
// a frame does to the destructors on its way.
#include "managed.h"
#include <stdexcept>

static stackmark_runtime *runtime;
static uintptr_t last_result;
static int destroyed;
static block the_block;

struct Counted {
    ~Counted() { destroyed++; }
};

// Leaves the foreign call on every way out.
struct Foreign {
    stackmark_foreign_call call;
    Foreign() { OK(stackmark_foreign_enter(&call)); }
    ~Foreign() { stackmark_foreign_leave(&call); }
};

static uintptr_t call_back() {
    Counted counted;
    uintptr_t result = 0;
    OK(stackmark_call_back(reinterpret_cast<stackmark_managed *>(managed_back),
                           reinterpret_cast<uintptr_t>(&the_block), &result));
    return result;
}

extern "C" uintptr_t calls_back(void *) {
    return call_back();
}

extern "C" uintptr_t throws(void *) {
    Counted counted;
    throw std::runtime_error("out of a foreign call");
}

extern "C" uintptr_t throws_in_callback(void *, uintptr_t) {
    return stackmark_foreign(throws, nullptr);
}

// An exception that crosses a foreign call, the frame of managed_back and a callback.
extern "C" uintptr_t catches(void *goroutine, uintptr_t) {
    the_block.goroutine = static_cast<stackmark_goroutine *>(goroutine);
    the_block.f = throws_in_callback;
    for (int i = 0; i < 2; i++) {
        try {
            Foreign foreign;
            call_back();
            return 1;
        } catch (const std::runtime_error &error) {
            CHECK(strcmp(error.what(), "out of a foreign call") == 0);
        }
        CHECK(stackmark_goroutine_status(the_block.goroutine) == STACKMARK_RUNNING);
    }
    CHECK(destroyed == 4);
    return 2;
}

// The same, caught for a runtime that has no catch.
extern "C" uintptr_t caught(void *goroutine, uintptr_t) {
    stackmark_exception *exception = nullptr;
    uintptr_t result = 0;
    char text[200];
    the_block.goroutine = static_cast<stackmark_goroutine *>(goroutine);
    CHECK(stackmark_catch_native(
              [](void *) -> uintptr_t { return stackmark_foreign(calls_back, nullptr); }, nullptr,
              &result, &exception) == STACKMARK_EXCEPTION);
    stackmark_exception_text(exception, text, sizeof text);
    CHECK(strstr(text, "std::runtime_error") != nullptr);
    CHECK(stackmark_exception_class(exception) != 0);
    stackmark_exception *forgotten = nullptr;
    CHECK(stackmark_catch_native(throws, nullptr, &result, &forgotten) == STACKMARK_EXCEPTION);
    stackmark_exception_free(forgotten);
    stackmark_exception_free(nullptr);
    try {
        stackmark_exception_resume(exception);
    } catch (const std::runtime_error &) {
        return 3;
    }
    return 0;
}

static int oldest(void *user, const stackmark_frame *frame) {
    if (frame->kind == STACKMARK_FRAME_MANAGED)
        *static_cast<size_t *>(user) = frame->depth;
    return 0;
}

extern "C" uintptr_t leaves(void *, uintptr_t) {
    size_t depth = 0;
    OK(stackmark_frames(oldest, &depth));
    stackmark_unwind_to(depth, reinterpret_cast<uintptr_t>(managed_entry_pad), 4, 0);
    abort();
}

// Frames that are left for a managed one: destructors run.
extern "C" uintptr_t is_left(void *goroutine, uintptr_t) {
    the_block.goroutine = static_cast<stackmark_goroutine *>(goroutine);
    the_block.f = leaves;
    Foreign foreign;
    call_back();
    abort();
}

// An exception must not leave this one.
static uintptr_t throws_in_publish(void *, uintptr_t) {
    return stackmark_park([](void *) { throw std::runtime_error("published"); }, nullptr);
}

int main(int count, char **) {
    stackmark_host host{};
    host.size = sizeof host;
    host.goroutine_exited = [](void *, stackmark_goroutine *, uintptr_t result) {
        last_result = result;
    };
    stackmark_machine *machine;
    OK(stackmark_runtime_new(nullptr, &host, &runtime));
    register_managed(runtime);
    OK(stackmark_attach(runtime, &machine));
    if (count > 1)
        run_native(runtime, machine, throws_in_publish);
    run_native(runtime, machine, catches);
    CHECK(last_result == 2);
    destroyed = 0;
    run_native(runtime, machine, caught);
    CHECK(last_result == 3 && destroyed == 3);
    destroyed = 0;
    run_native(runtime, machine, is_left);
    CHECK(last_result == 4 && destroyed == 1);
    OK(stackmark_detach(machine));
    stackmark_runtime_release(runtime);
    puts("exceptions: all checks hold");
}
