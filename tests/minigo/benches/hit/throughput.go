// Work beside a goroutine that collects all the time: fib, binary trees, a deep recursion.
package main

import (
	"fmt"
	"runtime"
)

type node struct {
	left, right *node
}

func build(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{build(depth - 1), build(depth - 1)}
}

func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func descend(n int, at *node) int {
	if n == 0 {
		return at.count()
	}
	return descend(n-1, at) + at.count()
}

var stop bool

func work(what string) int {
	if what == "fib" {
		return fib(35)
	}
	sum := 0
	if what == "trees" {
		for i := 0; i < 400; i++ {
			sum += build(14).count()
		}
		return sum
	}
	at := &node{}
	for i := 0; i < 5; i++ {
		sum += descend(400000, at)
	}
	return sum
}

func main() {
	go func() {
		for !stop {
			runtime.GC()
			runtime.Gosched()
		}
	}()
	fmt.Println(work("fib"))
	stop = true
}
