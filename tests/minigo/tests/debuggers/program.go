// Goroutines in every state that there is, while the first one stops in the innermost call.
package main

// int inC(void);
// void waitInC(void);
// void callBack(void);
import "C"

import "runtime"

const depth = 20

var (
	ready = make(chan bool)
	never = make(chan int)
)

type list struct {
	next *list
	n    int
}

func descend(n int, l *list) int {
	if n == 0 {
		ready <- true
		return <-never + l.n
	}
	return descend(n-1, &list{l, n}) + l.n
}

func parked() {
	descend(depth, &list{nil, 0})
}

func foreign() {
	C.waitInC()
}

//export goWait
func goWait() {
	descend(3, &list{nil, 0})
}

func calledBack() {
	C.callBack()
}

func runnable() {
	<-never
}

func stop(n int) int {
	if n == 0 {
		go runnable()
		return runtime.NumGoroutine()
	}
	return stop(n-1) + 1
}

func main() {
	go parked()
	go calledBack()
	go foreign()
	<-ready
	<-ready
	// The others run on, to where they wait. The debugger stops here to look, and sets 2.
	for C.inC() != 2 {
		runtime.NumGoroutine()
		runtime.Gosched()
	}
	runtime.GC()
	stop(3)
}
