// Short goroutines, started in batches and joined over a channel.
package main

import "fmt"

const size = 30000 // stress: 200

const batch = 64

func send(i int, done chan int) {
	done <- i
}

func main() {
	done := make(chan int)
	sum := 0
	for started := 0; started < size; started += batch {
		for i := 0; i < batch; i++ {
			go send(started+i, done)
		}
		for i := 0; i < batch; i++ {
			sum += <-done
		}
	}
	fmt.Println(sum)
}
