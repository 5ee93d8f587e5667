package main

// int callOut(int n);
// int callThatWaits(int n);
// int callBack(int n);
// int callFromThread(int n);
// int allocate(int n);
import "C"

import (
	"fmt"
	"runtime"
)

type node struct {
	left, right *node
	value       int
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{value: 1}
	}
	return &node{tree(depth - 1), tree(depth - 1), depth}
}

func (n *node) sum() int {
	if n == nil {
		return 0
	}
	return n.left.sum() + n.value + n.right.sum()
}

// Grows a stack by moves, and beyond the largest that moves.
func deep(n int, kept *node) int {
	var room [16]int
	room[n%16] = n
	if n == 0 {
		return kept.value
	}
	return deep(n-1, kept) + room[n%16] - n
}

//export goBack
func goBack(n C.int) C.int {
	return C.int(deep(200, &node{value: int(n)}))
}

func recovers(n int) (r int) {
	defer func() { r = recover().(int) }()
	var f func(k int)
	f = func(k int) {
		if k == 0 {
			panic(n)
		}
		f(k - 1)
	}
	f(100)
	return 0
}

func work(id int, out chan int) {
	sum := tree(6).sum() + deep(100+id%7*50, &node{value: id})
	sum += int(C.callOut(C.int(id))) + int(C.callBack(C.int(id)))
	if id%16 == 0 {
		sum += int(C.callThatWaits(C.int(id))) + int(C.callFromThread(C.int(id)))
	}
	if id%8 == 0 {
		sum += recovers(id)
	}
	out <- sum
}

func main() {
	out := make(chan int)
	for round := 0; round < 3; round++ {
		for id := 0; id < 64; id++ {
			go work(id, out)
		}
		sum := 0
		for id := 0; id < 64; id++ {
			sum += <-out
		}
		fmt.Println("round", round, sum)
		fmt.Println("deep", deep(6000, &node{value: round}), C.allocate(300000))
		runtime.GC()
		stay := make(chan int)
		for i := 0; i < 4; i++ {
			go func(i int) {
				deep(4000, &node{value: i})
				<-stay
				out <- i
			}(i)
		}
		for i := 0; i < 4; i++ {
			runtime.GC()
		}
		for i := 0; i < 4; i++ {
			stay <- i
			<-out
		}
	}
	fmt.Println("end")
}
