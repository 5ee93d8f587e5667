// The result and the error number of a call survive callbacks that grow the stack and make
// such calls themselves (Go's issue 10406), two levels deep.
package main

// long nested(long level);
// long probe(long n);
import "C"

import "fmt"

const size = 100 // stress: 3

//export goCallback
func goCallback(level C.long) C.long {
	sum := grow(int(level) * 100)
	if level > 0 {
		r, err := C.nested(level - 1)
		if r != 100+level-1 || err == nil || fmt.Sprint(err) != "errno 333" {
			panic(fmt.Sprint("inner call: ", r, " ", err))
		}
	}
	for i := 1; i < 3; i++ {
		if r, err := C.probe(C.long(i)); r != C.long(-i) || err == nil {
			panic(fmt.Sprint("call in a callback: ", r, " ", err))
		}
	}
	if _, err := C.probe(0); err != nil {
		panic(fmt.Sprint("call without error: ", err))
	}
	return C.long(sum)
}

func grow(n int) int {
	var frame [32]int
	frame[n%32] = 1
	if n <= 0 {
		return frame[0]
	}
	return grow(n-1) + frame[n%32]
}

func main() {
	done := make(chan string)
	for i := 0; i < size; i++ {
		go func() {
			r, err := C.nested(2)
			done <- fmt.Sprint(r-2, " ", err)
		}()
		if got := <-done; got != "100 errno 333" {
			panic(got)
		}
	}
	r, err := C.nested(0)
	fmt.Println(r, err)
}
