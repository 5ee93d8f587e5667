// Goroutines: arguments of all kinds, methods and closures, trees of goroutines, each
// with a stack that grows and an object that only it knows, while others collect.
package main

import (
	"fmt"
	"runtime"
)

const size = 9 // stress: 4

type job struct {
	id     int
	result chan int
}

func (j job) run(weight int)         { j.result <- j.id * weight }
func (j *job) runShared(weight int8) { j.result <- j.id + int(weight) }

type all struct {
	a  int8
	b  uint16
	c  float64
	d  bool
	e  string
	f  []int
	g  [2]int
	id int
	i  int
}

func send(out chan all, a int8, b uint16, c float64, d bool, e string, f []int, g [2]int, h *job, i func() int) {
	out <- all{a, b, c, d, e, f, g, h.id, i()}
}

type node struct {
	left, right *node
	value       int
}

func grow(depth int) *node {
	if depth == 0 {
		return nil
	}
	left, right := make(chan *node), make(chan *node, 1)
	go func() { left <- grow(depth - 1) }()
	go func() { right <- grow(depth - 1) }()
	n := &node{value: depth}
	n.left = <-left
	n.right = <-right
	return n
}

func (n *node) sum() int {
	if n == nil {
		return 0
	}
	return n.value + n.left.sum() + n.right.sum()
}

func deep(n int, o *node) int {
	var pad [20]int
	pad[n%20] = n
	if n == 0 {
		runtime.Gosched()
		return o.value
	}
	return deep(n-1, o) + pad[n%20] - n
}

func main() {
	result := make(chan int)
	j := &job{6, result}
	go j.run(7)
	fmt.Println(<-result)
	go j.runShared(-6)
	fmt.Println(<-result)

	out := make(chan all)
	n := 5
	go send(out, -1, 65535, 0.25, true, "text", []int{1, 2}, [2]int{3, 4}, j, func() int { n++; return n })
	fmt.Println(<-out)

	fmt.Println(grow(size).sum())

	for i := 0; i < 10*size; i++ {
		go func(i int) {
			result <- deep(i*5, &node{value: i})
		}(i)
	}
	total := 0
	for i := 0; i < 10*size; i++ {
		total += <-result
		if i%size == 0 {
			runtime.GC()
		}
	}
	fmt.Println(total)

	done := make(chan bool)
	go func() {
		go func() {
			go func() {
				done <- true
			}()
		}()
	}()
	fmt.Println(<-done)

	// Those that are still blocked when main returns do not keep the program alive.
	for i := 0; i < 5; i++ {
		go func() { <-make(chan int) }()
	}
	runtime.Gosched()
}
