package main

/*
#include <stddef.h>
static int a(int x) { return x + 1; }
static int p0(int p0) { return p0; }
static int block(void) { return 2; }
static int top(int e) { return e; }
static int r(int r0) { return r0; }
static int e(void) { return 5; }
static int f(int a, int b, int c) { return a + 10 * b + 100 * c; }
static int none(void) { return 6; }
int rand(void) { return 7; }
long lseek(int fd, long at, int how) { return fd + at + how; }
int getpid(void) { return -1; }
int noargs();
int noargs() { return 8; }
static int twice() { return 2 * getpid() + rand(); }
static size_t length(_GoString_ s, _GoString_ t) { return _GoStringLen(s) + 10 * _GoStringLen(t) + _GoStringPtr(s)[1]; }
*/
import "C"
import "fmt"

func main() {
	x, err := C.a(1)
	y, err2 := C.e()
	fmt.Println(x, err, y, err2, C.p0(3), C.block(), C.top(4), C.r(5), C.f(1, 2, 3), C.none())
	fmt.Println(C.rand(), C.getpid(), C.lseek(1, 2, 3), C.noargs(), C.twice())
	s := "some"
	fmt.Println(C.length(s+"thing", "ab"))
}
