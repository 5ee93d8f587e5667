package main

import (
	"fmt"
	"runtime"
)

const size = 300 // stress: 3

// A function that is deferred may be nil, or an interface without a value. To call it is a panic,
// under the panic or Goexit that calls it: what the runtime knows of the older one is needed when
// the younger one is recovered.

type node struct {
	next *node
	n    [6]int
}

var kept *node

// garbage takes the place of what has been freed.
func garbage() {
	for i := 0; i < 40; i++ {
		kept = &node{next: kept, n: [6]int{-1, -1, -1, -1, -1, -1}}
	}
	kept = nil
}

func collect() {
	runtime.GC()
	garbage()
}

type closer interface{ close() }

func abandoned(n int) {
	defer collect()
	var nothing func()
	defer nothing()
	panic(n)
}

func abandonedTwice(n int) {
	defer collect()
	var nothing func()
	defer nothing()
	defer collect()
	defer nothing()
	panic(n)
}

func abandonedMethod(n int) {
	defer collect()
	var c closer
	defer func() { c.close() }()
	panic(fmt.Sprint("text ", n))
}

func abandonedGoexit(n int) {
	defer collect()
	var nothing func()
	defer nothing()
	runtime.Goexit()
}

func deeper(n int) {
	if n > 0 {
		defer collect()
		deeper(n - 1)
		return
	}
	abandoned(n)
}

func replaced(n int) {
	defer collect()
	defer func() { panic(fmt.Sprint(recover(), " then ", n)) }()
	abandoned(n)
}

func try(f func(int), n int) (r interface{}) {
	defer func() {
		r = recover()
		collect()
	}()
	f(n)
	return "nothing"
}

func main() {
	all := []func(int){abandoned, abandonedTwice, abandonedMethod, deeper, replaced}
	for i := 0; i < size; i++ {
		for j, f := range all {
			r := try(f, i%4)
			if i < 2 {
				fmt.Println(j, r)
			}
			if e, ok := r.(error); ok && e.Error() == "" {
				fmt.Println("no text")
			}
		}
		// A Goexit goes on behind a recovered panic.
		done := make(chan interface{})
		go func() {
			defer func() { done <- "ended" }()
			defer collect()
			done <- try(abandonedGoexit, i)
			done <- "not reached"
		}()
		first := <-done
		if i < 2 {
			fmt.Println(first)
		}
	}
	fmt.Println("done")
}
