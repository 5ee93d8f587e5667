// Goroutines recurse and allocate in each frame, as fast as they can. Prints the longest time in nanoseconds between two
// readings of the clock, one in 64 frames, of each goroutine.
package main

import (
	"fmt"
	"time"
)

const (
	depth      = 1000
	recursions = 3
)

type box struct {
	v    int64
	next *box
}

var (
	longest [recursions]int64
	start   = time.Now()
	done    = make(chan int64)
)

func now() int64 { return int64(time.Since(start)) }

//go:noinline
func push(d int64, last int64, who int, up *box) int64 {
	b := &box{d, nil}
	if d&63 == 0 {
		t := now()
		if t-last > longest[who] {
			longest[who] = t - last
		}
		last = t
	}
	var sum int64
	if d > 0 {
		sum = push(d-1, last, who, b)
	}
	return sum + b.v - up.v
}

func main() {
	for who := 0; who < recursions; who++ {
		go func(who int) {
			done <- push(depth, now(), who, &box{0, nil})
		}(who)
	}
	for who := 0; who < recursions; who++ {
		<-done
	}
	for who := 0; who < recursions; who++ {
		fmt.Println("gap", longest[who])
	}
}
