// C functions called with every kind of argument, and Go functions called from C.
package main

/*
#cgo LDFLAGS: -lm
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT 42
#define FLAG (1u << 5)
enum color { RED, GREEN = 5, BLUE };

typedef struct point { int x; double y; struct point *next; } point;
typedef struct { unsigned char tag; int64_t value; char name[8]; } record;
typedef int (*binary)(int, int);

static int add(int a, int b) { return a + b; }
static double scale(double x, float f) { return x * f; }
static unsigned char low(unsigned long long v) { return v; }
static int64_t wide(int8_t a, uint16_t b, long c, size_t d) { return a + b + c + d; }
static void move_point(point *p, int dx) { p->x += dx; p->y *= 2; }
static int sum_points(const point *p) { int s = 0; for (; p; p = p->next) s += p->x; return s; }
static record make_record(int tag) { record r = { tag, (int64_t)tag << 33, "made" }; return r; }
static int64_t use_record(record r) { return r.value + r.tag + r.name[0]; }
static int fails(int n) { if (n) errno = n; return -n; }
static void fails_void(int n) { errno = n; }
static enum color next_color(enum color c) { return c == RED ? GREEN : BLUE; }
static int apply(binary f, int a, int b) { return f(a, b); }
static _Bool negate(_Bool b) { return !b; }
static void fill(char *to, int n) { memset(to, 'x', n); to[n] = 0; }

extern int goAdd(int, int);
extern int64_t goVisit(void *, char *);
static int64_t visit(void *p, char *name) { return goVisit(p, name) + 1; }
*/
import "C"

import (
	"fmt"
	"unsafe"
)

const size = 100 // stress: 5

//export goAdd
func goAdd(a, b C.int) C.int {
	return a*1000 + b
}

type state struct {
	sum   int
	names []string
}

//export goVisit
func goVisit(p unsafe.Pointer, name *C.char) C.int64_t {
	s := (*state)(p)
	s.sum++
	s.names = append(s.names, C.GoString(name))
	return C.int64_t(s.sum * 10)
}

func strings() {
	s := C.CString("héllo")
	defer C.free(unsafe.Pointer(s))
	fmt.Println(C.strlen(s), C.GoString(s), C.GoStringN(s, 3), C.GoBytes(unsafe.Pointer(s), 2))
	b := C.CBytes([]byte{1, 2, 3})
	fmt.Println(C.GoBytes(b, 3))
	C.free(b)
	buffer := make([]byte, 8)
	C.fill((*C.char)(unsafe.Pointer(&buffer[0])), 5)
	fmt.Println(string(buffer[:5]), buffer[5])
}

func structs() {
	var p, q C.point
	p.x, p.y = 3, 1.5
	C.move_point(&p, 4)
	q = C.point{x: 10, next: &p}
	fmt.Println(p.x, p.y, C.sum_points(&q))
	var s C.struct_point
	s.x = 1
	s.next = &q
	fmt.Println(C.sum_points(&s))
	r := C.make_record(9)
	fmt.Println(r.tag, r.value, r.name[0], C.use_record(r))
}

func errors() {
	r, err := C.fails(0)
	fmt.Println(r, err)
	r, err = C.fails(2)
	fmt.Println(r, err)
	_, err = C.fails(333)
	fmt.Println(err, err != nil)
	_, err = C.fails_void(33)
	fmt.Println(err)
	root, err := C.sqrt(-1)
	fmt.Println(root, err)
}

func main() {
	total := 0
	for i := 0; i < size; i++ {
		total += int(C.add(C.int(i), 2))
	}
	fmt.Println(total)
	fmt.Println(C.scale(1.5, 4), C.low(0x1234), C.wide(-1, 2, 3, 4), C.sqrt(2))
	fmt.Println(C.LIMIT, C.FLAG, C.RED, C.GREEN, C.next_color(C.GREEN), C.sizeof_int)
	fmt.Println(C.negate(true), C.negate(false))
	fmt.Printf("%T %T %T\n", C.int(1), C.struct_point{}, C.GREEN)
	strings()
	structs()
	errors()
	fmt.Println(C.apply(C.binary(C.goAdd), 3, 4))
	s := &state{}
	name := C.CString("visited")
	for i := 0; i < 3; i++ {
		fmt.Println(C.visit(unsafe.Pointer(s), name))
	}
	C.free(unsafe.Pointer(name))
	fmt.Println(s.sum, s.names)
	done := make(chan C.int)
	for i := 0; i < 4; i++ {
		go func(i int) { done <- C.apply(C.binary(C.goAdd), C.int(i), 1) }(i)
	}
	sum := C.int(0)
	for i := 0; i < 4; i++ {
		sum += <-done
	}
	fmt.Println(sum)
}
