package main

import (
	"fmt"
	"runtime"
)

func main() {
	c := make(chan int)
	started := make(chan bool)
	go func() {
		started <- true
		c <- 1
	}()
	<-started
	runtime.Gosched()
	fmt.Println("closing")
	close(c)
	<-make(chan int)
}
