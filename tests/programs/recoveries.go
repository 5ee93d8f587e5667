// A panic leaves a recursion of size frames and is recovered, twelve times, while
// another goroutine allocates.
package main

import "fmt"

const size = 50000 // stress: 100

type object struct {
	older *object
	depth int
}

func descend(depth int, older *object) int {
	if depth == 0 {
		panic(older.depth)
	}
	o := &object{older, depth}
	return descend(depth-1, o) + o.depth
}

func try(i int) (recovered int) {
	defer func() {
		recovered = recover().(int)
	}()
	return descend(size, &object{nil, i})
}

func allocate(stop, stopped chan bool) {
	list := &object{nil, 0}
	for {
		select {
		case <-stop:
			stopped <- list != nil
			return
		default:
			list = nil
			for i := 0; i < 100; i++ {
				list = &object{list, i}
			}
		}
	}
}

func main() {
	stop := make(chan bool)
	stopped := make(chan bool)
	go allocate(stop, stopped)
	sum := 0
	for i := 0; i < 12; i++ {
		sum += try(i)
	}
	stop <- true
	fmt.Println(sum, <-stopped)
}
