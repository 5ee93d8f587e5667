// Functions with frames larger than a new stack, called after a wait for a
// channel, at the depth where their stack has to grow for them.
package main

import "fmt"

const size = 2000 // stress: 20

func large(n int) int {
	var a [600]int
	for i := 0; i < len(a); i += 50 {
		a[i] = n + i
	}
	if n > 0 && n%5 == 0 {
		a[0] += large(n - 1)
	}
	return a[0] + a[550]
}

func worker(in, out chan int) {
	for n := range in {
		out <- large(n)
	}
	close(out)
}

func main() {
	in, out := make(chan int), make(chan int)
	go worker(in, out)
	sum := 0
	for i := 0; i < size; i++ {
		in <- i
		sum += <-out
	}
	close(in)
	fmt.Println(sum)
}
