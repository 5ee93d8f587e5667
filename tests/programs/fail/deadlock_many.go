package main

import "fmt"

func main() {
	a, b := make(chan int), make(chan int)
	for i := 0; i < 10; i++ {
		go func() {
			a <- <-b
		}()
	}
	b <- 1
	fmt.Println(<-a)
	for v := range a {
		fmt.Println(v)
	}
}
