package main

import "fmt"

func main() {
	n := -1
	fmt.Println(cap(make(chan int, n+3)))
	fmt.Println(cap(make(chan int, n)))
}
