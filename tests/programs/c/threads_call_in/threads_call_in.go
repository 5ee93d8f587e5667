// Threads of C's own call in, again and again, many at once, and end (Go's issues 13881, 13926, 59294).
package main

// void doAdd(int max, int threads);
// int deep(int depth);
// void destructors(int threads);
import "C"

import (
	"fmt"
	"runtime"
)

const size = 100 // stress: 6

var (
	lock = make(chan bool, 1)
	sum  int
	last int
)

//export Add
func Add(x C.int) {
	lock <- true
	sum += int(x)
	<-lock
}

//export goDeep
func goDeep(depth C.int) C.int {
	return C.int(grow(int(depth)))
}

//export goLast
func goLast() {
	lock <- true
	last++
	<-lock
	if last%10 == 0 {
		runtime.GC()
	}
}

func grow(n int) int {
	var frame [16]int
	frame[n%16] = n
	if n == 0 {
		return 0
	}
	return grow(n-1) + 1 + frame[n%16] - n
}

func main() {
	C.doAdd(10, 6)
	fmt.Println(sum)
	sum = 0
	C.doAdd(100, size)
	fmt.Println(sum == size*99*100/2)
	fmt.Println(C.deep(0), C.deep(20000), C.deep(0))
	C.destructors(size)
	fmt.Println(last == size)
}
