// C code returns a value of its own after it has called a Go function that made the
// stack move (Go's issue 8696): on a new goroutine, whose stack is small.
package main

// int returnAfterGrow(void);
import "C"

import "fmt"

const size = 200 // stress: 3

//export goReturnVal
func goReturnVal() (r C.int) {
	var f func(int) int
	f = func(i int) int {
		var buf [256]byte
		buf[i] = byte(i)
		if i == 0 {
			return int(buf[0])
		}
		return int(buf[i]) + f(i-1)
	}
	r = C.int(f(128))
	return
}

func main() {
	c := make(chan int)
	for i := 0; i < size; i++ {
		go func() { c <- int(C.returnAfterGrow()) }()
		if got := <-c; got != 123456 {
			panic(fmt.Sprint("returnAfterGrow gave ", got))
		}
	}
	go func() { c <- int(C.returnAfterGrow()) }()
	fmt.Println(<-c)
}
