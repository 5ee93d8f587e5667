package main

import "fmt"

func main() {
	c := make(chan int, 2)
	for i := 0; ; i++ {
		fmt.Println(i)
		c <- i
	}
}
