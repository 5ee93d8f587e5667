// The same calls in Go: cgo call, cgo callback, Gosched between two goroutines. Prints the version and nanoseconds.
package main

/*
#include <stdint.h>
static uint64_t plain(uint64_t x) { return x + 1; }
extern uint64_t goBack(uint64_t x);
static uint64_t callsBack(uint64_t n) {
	uint64_t sum = 0;
	for (uint64_t i = 0; i < n; i++) sum += goBack(i);
	return sum;
}
*/
import "C"
import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

//export goBack
func goBack(x C.uint64_t) C.uint64_t { return x + 1 }

// The best of several rounds, in nanoseconds a step.
func best(rounds, n int, f func(n int)) float64 {
	least := 1e18
	for i := 0; i < rounds; i++ {
		begin := time.Now()
		f(n)
		if t := float64(time.Since(begin).Nanoseconds()) / float64(n); t < least {
			least = t
		}
	}
	return least
}

func main() {
	rounds, _ := strconv.Atoi(os.Args[1])
	n, _ := strconv.Atoi(os.Args[2])
	fmt.Println("version", runtime.Version())
	fmt.Println("call", best(rounds, n, func(n int) {
		for i := 0; i < n; i++ {
			C.plain(C.uint64_t(i))
		}
	}))
	fmt.Println("callback", best(rounds, n, func(n int) { C.callsBack(C.uint64_t(n)) }))
	runtime.GOMAXPROCS(1)
	fmt.Println("gosched", best(rounds, n, func(n int) {
		done := make(chan bool)
		for k := 0; k < 2; k++ {
			go func() {
				for i := 0; i < n/2; i++ {
					runtime.Gosched()
				}
				done <- true
			}()
		}
		<-done
		<-done
	}))
}
