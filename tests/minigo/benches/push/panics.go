// One goroutine recurses, panics in its deepest frame and recovers in its first one, again and again. Another one
// allocates meanwhile, so that collections run. Prints the longest time in nanoseconds between two turns of the other one.
package main

import (
	"fmt"
	"runtime"
	"time"
)

const (
	depth = 1000
	turns = 12
)

type box struct {
	v    int64
	next *box
}

var (
	start = time.Now()
	done  = make(chan int64)
)

func now() int64 { return int64(time.Since(start)) }

//go:noinline
func down(d int64, up *box) int64 {
	b := &box{d, nil}
	if d == 0 {
		panic("the deepest frame")
	}
	return down(d-1, b) + b.v - up.v
}

func turn() (left bool) {
	defer func() { left = recover() != nil }()
	return down(depth, &box{0, nil}) == 0
}

func main() {
	go func() {
		var count int64
		for i := 0; i < turns; i++ {
			if turn() {
				count++
			}
		}
		done <- count
	}()
	var kept *box
	var longest int64
	last := now()
	for i := int64(0); ; i++ {
		kept = &box{i, kept}
		if i&1023 == 0 {
			kept = nil
			t := now()
			if t-last > longest {
				longest = t - last
			}
			last = t
			select {
			case count := <-done:
				fmt.Println("left", count)
				fmt.Println("gap", longest)
				return
			default:
				runtime.Gosched()
			}
		}
	}
}
