// Two goroutines that hand a number to and fro over two channels without room.
package main

import "fmt"

const size = 20000 // stress: 100

func answer(in, out chan int) {
	for i := range in {
		out <- i + 1
	}
	close(out)
}

func main() {
	in := make(chan int)
	out := make(chan int)
	go answer(in, out)
	sum := 0
	for i := 0; i < size; i++ {
		in <- i
		sum += <-out
	}
	close(in)
	_, open := <-out
	fmt.Println(sum, open)
}
