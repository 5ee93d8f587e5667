// Many goroutines, each parked 50 frames deep with an object in every frame, across
// collections, while another one makes garbage; then they return.
package main

import (
	"fmt"
	"runtime"
)

const size = 20000 // stress: 30

const depth = 50

type object struct {
	id    int
	frame int
}

type garbage struct {
	next *garbage
	data [4]int
}

func descend(id, frame int, ready chan int, release chan bool) int {
	o := &object{id, frame}
	sum := 0
	if frame < depth {
		sum = descend(id, frame+1, ready, release)
	} else {
		ready <- id
		<-release
	}
	if o.id != id || o.frame != frame {
		panic("a frame lost its object")
	}
	return sum + o.frame
}

func waste(n int) int {
	length := 0
	var list *garbage
	for i := 0; i < n; i++ {
		if i%1000 == 0 {
			list = nil
			length = 0
		}
		list = &garbage{next: list}
		list.data[i%4] = i
		length++
	}
	return length
}

func main() {
	ready := make(chan int)
	release := make(chan bool)
	results := make(chan int)
	for i := 0; i < size; i++ {
		id := i
		go func() {
			results <- descend(id, 1, ready, release)
		}()
	}
	seen := 0
	for i := 0; i < size; i++ {
		seen += <-ready
	}
	fmt.Println("parked:", runtime.NumGoroutine()-1, "sum of ids:", seen)

	fmt.Println("rest of the garbage:", waste(20*size+500))
	runtime.GC()

	close(release)
	sum := 0
	for i := 0; i < size; i++ {
		sum += <-results
	}
	fmt.Println("released, sum of frames:", sum)
}
