// A recursion of size frames, each with a live object that it checks on return,
// while another goroutine makes garbage and collects it all the time. At the
// bottom it goes up and down over its newest frames until 20 collections have
// passed. The goroutine's stack is then given back.
package main

import (
	"fmt"
	"runtime"
)

const size = 1000000 // stress: 200

const wanted = 20

type object struct {
	depth int
	mark  int
}

func newObject(depth int) *object {
	return &object{depth, depth*31 + 7}
}

func (o *object) check(depth int) int {
	if o.depth != depth || o.mark != depth*31+7 {
		panic("an object of a live frame was lost")
	}
	return 1
}

// counter holds the number of collections that have passed; taking the number
// out is the lock. A negative number asks the collecting goroutine to stop.
var counter = make(chan int, 1)

func passed() int {
	n := <-counter
	counter <- n
	return n
}

type garbage struct {
	next *garbage
	data [4]int
}

func collect(stopped chan bool) {
	for {
		var list *garbage
		for i := 0; i < size/1000+10; i++ {
			list = &garbage{next: list}
			list.data[i%4] = i
		}
		runtime.GC()
		n := <-counter
		if n < 0 {
			break
		}
		counter <- n + 1
	}
	stopped <- true
}

// newest is the number of frames that come and go at the bottom.
func newest() int {
	if size < 1000 {
		return size / 10
	}
	return 100
}

// descend goes down the given number of frames and returns how many objects were
// found intact on the way back.
func descend(depth, swing int) int {
	o := newObject(depth)
	intact := 0
	if depth == swing {
		start := passed()
		for passed() < start+wanted {
			intact = descend(depth-1, -1)
			runtime.Gosched()
		}
	} else if depth > 1 {
		intact = descend(depth-1, swing)
	}
	return intact + o.check(depth)
}

func main() {
	counter <- 0
	stopped := make(chan bool)
	go collect(stopped)

	result := make(chan int)
	go func() {
		result <- descend(size, newest())
	}()
	fmt.Println("intact objects:", <-result)

	<-counter
	counter <- -1
	<-stopped
	// Until all goroutines but this one have ended.
	for runtime.NumGoroutine() > 1 {
		runtime.Gosched()
	}
	runtime.GC()
	runtime.GC()
	fmt.Println("collections at the bottom: at least", wanted)
}
