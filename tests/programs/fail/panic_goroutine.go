package main

import "fmt"

func main() {
	fmt.Println("before")
	go func() {
		panic("in a goroutine")
	}()
	<-make(chan int)
}
