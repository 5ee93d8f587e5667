package main

import "fmt"

func main() {
	fmt.Println("before")
	a, b := make(chan int), make(chan int)
	select {
	case <-a:
	case b <- 1:
	}
}
