package main

/*
#include <stdlib.h>
struct point { int x, y; struct { short a; } in; };
int level = 3;
unsigned char bytes[4] = { 1, 2, 250 };
double ratio = 1.5;
const char *name = "name";
struct point corner = { 1, 2, { 3 } };
struct point *pointer = &corner;
int table[2][3] = { { 1, 2, 3 }, { 4, 5, 6 } };
long long big = 1LL << 40;
void *nothing;
_Bool flag = 1;
static int sum(void) { return level + bytes[2] + corner.y + table[1][2]; }
static int *where(void) { return &level; }
*/
import "C"
import "fmt"

func main() {
	C.level += 4
	C.level++
	C.bytes[2] = 20
	C.corner.y, C.corner.in.a = 30, 40
	C.table[1][2]++
	p := &C.level
	*p -= 1
	C.pointer.x = 50
	C.flag = !C.flag
	C.ratio *= 2
	fmt.Println(C.level, C.bytes, C.corner.x, C.corner.y, C.corner.in.a, C.table, C.big, C.ratio, C.nothing == nil, C.flag)
	fmt.Println(C.sum(), C.GoString(C.name), C.where() == p, *C.where())
	copied := C.corner
	copied.x = 1
	fmt.Println(C.corner.x, len(C.table), C.table[0][1])
	for i, b := range C.bytes {
		fmt.Print(i, b, " ")
	}
	fmt.Println()
	s := C.bytes[1:3]
	s[0] = 99
	fmt.Println(C.bytes[1])
}
