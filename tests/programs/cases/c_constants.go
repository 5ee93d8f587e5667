package main

/*
#include <stdbool.h>
#include <limits.h>
#define PI 3.25
#define TINY 1e-300
#define THIRD_PART (1.0 / 3)
#define NAME "a \"quoted\" name\n"
#define EMPTY_TEXT ""
#define NEGATIVE (-5)
#define LONGEST LLONG_MIN
#define LARGEST ULLONG_MAX
#define LETTER 'x'
#define TRUE_ONE (1 == 1)
#define ZERO 0
#define BYTE ((unsigned char)200)
#define SHORT ((short)-3)
#define HALF (1.0f / 2)
enum kind { FIRST = -1, SECOND, THIRD = 0x80000000u };
enum plain { ONE = 1, TWO };
typedef enum { RED, GREEN = 7 } color;
static enum plain next(enum plain p) { return p + 1; }
static color paint(color c) { return c; }
*/
import "C"
import "fmt"

const half = C.PI / 2

func main() {
	var f float64 = C.PI
	var u uint64 = C.LARGEST
	var i int64 = C.LONGEST
	fmt.Println(f, half, C.TINY, C.THIRD_PART, C.NAME, len(C.NAME), C.EMPTY_TEXT == "", C.NEGATIVE, u, i)
	fmt.Println(C.LETTER, C.TRUE_ONE, C.ZERO, C.BYTE, C.SHORT, C.HALF, C.INT_MIN)
	fmt.Println(C.FIRST, C.SECOND, int64(C.THIRD), C.ONE, C.TWO, C.GREEN)
	fmt.Println(C.next(C.ONE), C.paint(C.GREEN))
	const text = C.NAME + "more"
	fmt.Println(text)
}
