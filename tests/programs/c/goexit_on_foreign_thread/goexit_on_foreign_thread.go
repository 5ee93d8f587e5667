// runtime.Goexit on a thread of C's own (Go's issue 68275).
package main

// void start(void);
import "C"

import (
	"fmt"
	"runtime"
)

const size = 1 // stress: 1

//export goExit
func goExit() {
	defer fmt.Println("deferred")
	runtime.Goexit()
}

func main() {
	C.start()
	<-make(chan int)
}
