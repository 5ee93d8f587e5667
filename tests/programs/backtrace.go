// A recursion whose frames are all scanned once before the innermost one calls out: where
// a debugger stops and looks back along them.
package main

import (
	"fmt"
	"runtime"
)

const size = 20 // stress: 20

type object struct{ depth int }

func descend(depth int) int {
	o := &object{depth}
	if depth == 0 {
		runtime.GC()
		runtime.NumGoroutine()
		return o.depth
	}
	return descend(depth-1) + o.depth
}

func main() {
	result := make(chan int)
	go func() {
		result <- descend(size)
	}()
	fmt.Println(<-result)
}
