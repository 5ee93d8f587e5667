// One of a chain of libraries: f1 calls f2 in the next one, and so on; the last throws. On its way
// back the exception runs a destructor in the third, or meets a function that lets none pass.
#include <cstdlib>
#include <exception>

typedef void (*look_t)();

#define JOIN(a, b) a##b
#define F(n) JOIN(f, n)

struct Guard {
    look_t look;
    ~Guard() { look(); }
};

#ifdef NEXT
extern "C" void F(NEXT)(look_t look, int frames);
#endif

// Frames of different sizes, one of them of a size that only the call decides.
extern "C" void F(N)(look_t look, int frames)
{
    volatile char *space = static_cast<volatile char *>(__builtin_alloca(16 * frames + N));
    space[0] = N;
#if N == 3
    Guard guard = { look };
#endif
#ifdef NEXT
    F(NEXT)(look, frames + 1);
#else
    throw frames + space[0];
#endif
    space[1] = 0;
}

#if N == 1
static look_t at_end;

static void ends()
{
    at_end();
    _Exit(3);
}

extern "C" int catches(look_t look)
{
    try {
        f1(look, 1);
    } catch (int thrown) {
        return thrown;
    }
    return 0;
}

extern "C" int lets_none_pass(look_t look) noexcept
{
    at_end = look;
    std::set_terminate(ends);
    f1([] {}, 1);
    return 0;
}
#endif
