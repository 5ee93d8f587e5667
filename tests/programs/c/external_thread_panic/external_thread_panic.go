// A thread of C's own calls in and panics (Go's issue 8588).
package main

// void start(void);
import "C"

import "fmt"

const size = 1 // stress: 1

//export gpanic
func gpanic() {
	panic("BOOM")
}

func main() {
	fmt.Println("before")
	C.start()
	<-make(chan int)
}
