package main

/*
#include <stdint.h>
#include <stddef.h>
struct __attribute__((packed)) packed { char a; int b; char c; short d; };
struct keywords { int type, func, range, go, defer, chan, map, var, select, package, import, interface, fallthrough; };
struct bits { unsigned a : 3; unsigned b : 5; int c; };
struct ends { long n; char rest[]; };
struct zero { int a; char z[0]; int b; };
struct anonymous { int a; union { int i; float f; }; struct { short s; }; int last; };
struct nested { char c; struct { char d; long l; } in; short s; };
union both { int i; double d; char c[12]; };
struct holds { char c; union both u; };
typedef struct { char c; int32_t i; } small;
struct self { struct self *next; small s[3]; void (*f)(int); };
static struct keywords words(void) { struct keywords k = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 }; return k; }
static int last(struct anonymous a) { return a.last; }
*/
import "C"
import (
	"fmt"
	"unsafe"
)

func main() {
	var p C.struct_packed
	var k C.struct_keywords = C.words()
	var b C.struct_bits
	var z C.struct_zero
	var a C.struct_anonymous
	var n C.struct_nested
	var h C.struct_holds
	var s C.struct_self
	fmt.Println(unsafe.Sizeof(p), C.sizeof_struct_packed, unsafe.Sizeof(k), unsafe.Sizeof(b), unsafe.Sizeof(z), unsafe.Sizeof(a), unsafe.Sizeof(n), unsafe.Sizeof(h), unsafe.Sizeof(s))
	fmt.Println(unsafe.Sizeof(C.struct_ends{}), unsafe.Sizeof(C.small{}), C.sizeof_union_both)
	fmt.Println(k._type, k._func, k._range, k._go, k._defer, k._chan, k._map, k._var, k._select, k._package, k._import, k._interface, k._fallthrough)
	fmt.Println(unsafe.Offsetof(b.c), unsafe.Offsetof(z.b), unsafe.Offsetof(a.last), unsafe.Offsetof(n.in), unsafe.Offsetof(n.s), unsafe.Offsetof(s.s))
	a.last = 77
	z.b = 5
	fmt.Println(C.last(a), z.a, z.b, len(z.z), p.a, p.c)
	s.next = &s
	s.s[2].i = 4
	fmt.Println(s.next.next.s[2].i)
}
