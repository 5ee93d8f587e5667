// The concurrent prime sieve: a chain of goroutines, one for each prime.
package main

import "fmt"

const size = 300 // stress: 12

func generate(out chan int) {
	for i := 2; ; i++ {
		out <- i
	}
}

func filter(in, out chan int, prime int) {
	for {
		i := <-in
		if i%prime != 0 {
			out <- i
		}
	}
}

func main() {
	in := make(chan int)
	go generate(in)
	for i := 1; i <= size; i++ {
		prime := <-in
		fmt.Printf("%5d", prime)
		if i%10 == 0 || i == size {
			fmt.Println()
		}
		out := make(chan int)
		go filter(in, out, prime)
		in = out
	}
}
