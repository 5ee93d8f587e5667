// A crowd of goroutines that wait at one channel across a collection and are
// then woken one by one. Each answers over another channel.
package main

import (
	"fmt"
	"runtime"
)

const size = 2000 // stress: 80

func wait(i int, in, out chan int) {
	out <- i + <-in
}

func wake(in chan int) {
	for i := 0; i < size; i++ {
		in <- 1
	}
}

func main() {
	in := make(chan int)
	out := make(chan int)
	for i := 0; i < size; i++ {
		go wait(i, in, out)
	}
	runtime.GC()
	go wake(in)
	sum := 0
	for i := 0; i < size; i++ {
		sum += <-out
	}
	fmt.Println(sum)
}
