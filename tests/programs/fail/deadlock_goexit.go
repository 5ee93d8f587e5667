package main

import (
	"fmt"
	"runtime"
)

func main() {
	done := make(chan bool)
	go func() {
		defer close(done)
		fmt.Println("others go on")
	}()
	defer fmt.Println("main's deferred functions run")
	<-done
	runtime.Goexit()
}
