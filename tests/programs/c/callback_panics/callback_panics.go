// A run-time error in a callback that nobody recovers: the traceback goes through the C frames.
package main

// void callBack(void);
import "C"

const size = 1 // stress: 1

//export goFails
func goFails() {
	var p *int
	*p = 1
}

func caller() {
	C.callBack()
}

func main() {
	caller()
}
