// Many goroutines parked at once, each with an object that only its own stack
// refers to, across collections, then released together.
package main

import (
	"fmt"
	"runtime"
)

const size = 100000 // stress: 60

type object struct {
	id   int
	next *object
}

func wait(id int, ready chan int, release chan bool, results chan int) {
	o := &object{id, &object{2 * id, nil}}
	ready <- id
	_, open := <-release
	if open || o.id != id || o.next.id != 2*id {
		panic("a parked goroutine lost its object")
	}
	results <- o.id + o.next.id
}

func main() {
	ready := make(chan int)
	release := make(chan bool)
	results := make(chan int)
	for i := 0; i < size; i++ {
		go wait(i, ready, release, results)
	}
	seen := 0
	for i := 0; i < size; i++ {
		seen += <-ready
	}
	fmt.Println("parked:", runtime.NumGoroutine()-1, "sum of ids:", seen)

	runtime.GC()
	runtime.GC()

	close(release)
	sum := 0
	for i := 0; i < size; i++ {
		sum += <-results
	}
	fmt.Println("released, sum of objects:", sum)
}
