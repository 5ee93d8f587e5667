// C code returns what it got from a Go function that made the stack move (Go's issue 8771): the
// result is written to where the stack is then.
package main

// int returnAfterGrowFromGo(void);
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
		go func() { c <- int(C.returnAfterGrowFromGo()) }()
		if got := <-c; got != 129*128/2 {
			panic(fmt.Sprint("returnAfterGrowFromGo gave ", got))
		}
	}
	go func() { c <- int(C.returnAfterGrowFromGo()) }()
	fmt.Println(<-c)
}
