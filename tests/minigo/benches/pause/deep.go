// A goroutine with a deep stack runs a loop that calls a few frames deep and reads the clock, while the main goroutine
// collects. Prints, for each collection, the longest time in nanoseconds between two readings; from its beginning on, for 25
// milliseconds or until it is over.
package main

import (
	"fmt"
	"runtime"
	"time"
)

const (
	depth       = 1000
	collections = 50
	collecting  = true
	window      = 25000000
	top         = 16
)

type box struct {
	v    int64
	next *box
}

var (
	start   = time.Now()
	pool    []*box
	longest int64
	stop    bool
	bottom  = make(chan bool)
	done    = make(chan int64)
)

func now() int64 { return int64(time.Since(start)) }

//go:noinline
func rec(d int) int64 {
	o := pool[d&1023]
	var r int64
	if d == top {
		r = spin()
	} else if d > 0 {
		r = rec(d - 1)
	}
	return r + o.v
}

//go:noinline
func spin() int64 {
	bottom <- true
	var sum int64
	last := now()
	for !stop {
		sum += rec(top - 1)
		t := now()
		if t-last > longest {
			longest = t - last
		}
		last = t
	}
	return sum
}

func main() {
	pool = make([]*box, 1024)
	for i := range pool {
		pool[i] = &box{v: int64(i)}
	}
	go func() { done <- rec(depth) }()
	<-bottom
	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	for i := 0; i < collections; i++ {
		longest = 0
		begun := now()
		if collecting {
			runtime.GC()
		}
		// So long at least: the goroutine may not have gone on yet, and the system's own gaps count for every depth alike.
		for now()-begun < window {
		}
		fmt.Println("gap", longest)
	}
	stop = true
	<-done
}
