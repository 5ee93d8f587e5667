// Panics that start in a callback and are recovered by the function that called C: again and
// again, and nothing is lost (Go's TestCallbackPanicLoop).
package main

/*
void callBack(int n);
long threads(void);
long residentKilobytes(void);
*/
import "C"

import (
	"fmt"
	"runtime"
)

const size = 100000 // stress: 30

//export goPanic
func goPanic(n C.int) {
	defer func() { deferred++ }()
	if n == 0 {
		panic("callback panic")
	}
	C.callBack(n - 1)
	panic("not reached")
}

var deferred int

func round(n C.int) (r interface{}) {
	defer func() { r = recover() }()
	C.callBack(n)
	return "no panic"
}

func rounds(n int) {
	for i := 0; i < n; i++ {
		if r := round(C.int(i % 3)); r != "callback panic" {
			panic(r)
		}
	}
}

func main() {
	rounds(size / 10)
	runtime.GC()
	threads, resident, goroutines := C.threads(), C.residentKilobytes(), runtime.NumGoroutine()
	deferred = 0
	rounds(size)
	runtime.GC()
	if after := C.threads(); after > threads+2 {
		fmt.Println("threads:", threads, after)
	}
	if after := C.residentKilobytes(); after > resident+16<<10 {
		fmt.Println("kilobytes:", resident, after)
	}
	fmt.Println(runtime.NumGoroutine()-goroutines, deferred)
}
