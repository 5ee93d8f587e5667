// Goroutines with deep stacks, then threads of C's own that call in: each collects, grows its
// stack, collects again, and ends (Go's issue 11907).
package main

// void foreignThreads(int n, int depth);
import "C"

import (
	"fmt"
	"runtime"
)

const size = 10000 // stress: 40

const goroutines = 100

//export goCallback
func goCallback(depth C.int) C.int {
	runtime.GC()
	n := grow(int(depth))
	runtime.GC()
	return C.int(n)
}

func grow(n int) int {
	x := &n
	if n == 0 {
		return *x
	}
	return grow(n-1) + 1 + *x - n
}

func main() {
	done := make(chan int)
	for i := 0; i < goroutines; i++ {
		go func() { done <- grow(size) }()
	}
	sum := 0
	for i := 0; i < goroutines; i++ {
		sum += <-done
	}
	fmt.Println(sum == goroutines*size)
	threads := 100
	if size < 100 {
		threads = 6
	}
	C.foreignThreads(C.int(threads), size)
	fmt.Println("OK")
}
