/* Built without .eh_frame of its own. */
__attribute__((noinline)) static void inner(void (*f)(void)) {
    volatile char a[40];
    a[3] = 1;
    f();
    a[4] = 2;
}
void outer(void (*f)(void)) {
    volatile char a[100];
    a[3] = 1;
    inner(f);
    a[4] = 2;
}
