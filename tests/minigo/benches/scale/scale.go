// Goroutines that recurse, wait at the bottom, work there, and return. Prints how long it took to start them, to collect while
// they wait, and to wake them and hear from all, in nanoseconds.
package main

import (
	"fmt"
	"runtime"
	"time"
)

const (
	goroutines  = 100
	depth       = 10
	work        = 0
	collections = 3
)

type node struct {
	value int
	next  *node
}

var (
	start   = time.Now()
	ready   = make(chan int, 1024)
	release = make(chan int, 1024)
	done    = make(chan int, 1024)
)

func now() int64 { return int64(time.Since(start)) }

// rest keeps an object in each frame.
//
//go:noinline
func rest(depth int, up *node) int {
	n := &node{depth, nil}
	sum := 0
	if depth > 0 {
		sum = rest(depth-1, n)
	} else {
		ready <- 1
		<-release
		for i := 0; i < work; i++ {
			sum += list(100) % 2
		}
	}
	return sum + n.value - up.value
}

func list(n int) int {
	var head *node
	for i := 0; i < n; i++ {
		head = &node{i, head}
	}
	sum := 0
	for ; head != nil; head = head.next {
		sum += head.value
	}
	return sum
}

func main() {
	begun := now()
	for i := 0; i < goroutines; i++ {
		go func() { done <- rest(depth, &node{0, nil}) }()
		// Some may wait already; no more than the channel takes are on the way.
		if i >= 512 {
			<-ready
		}
	}
	waiting := goroutines
	if waiting > 512 {
		waiting = 512
	}
	for i := 0; i < waiting; i++ {
		<-ready
	}
	fmt.Println("start", now()-begun)
	for i := 0; i < collections; i++ {
		begun = now()
		runtime.GC()
		fmt.Println("collect", now()-begun)
	}
	begun = now()
	go func() {
		for i := 0; i < goroutines; i++ {
			release <- 1
		}
	}()
	sum := 0
	for i := 0; i < goroutines; i++ {
		sum += <-done
	}
	fmt.Println("wake", now()-begun)
	fmt.Println("sum", sum)
}
