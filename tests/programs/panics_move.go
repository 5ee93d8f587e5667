// Deferred calls, panics and Goexit on stacks that grow, shrink, are collected and scanned meanwhile
// (Go's issues 8047, 11256, 25499, 40629, and the tests of its stacks).
package main

import (
	"fmt"
	"runtime"
)

const size = 100 // stress: 4

type big struct{ words [512]int }

type list struct {
	next  *list
	value int
}

func use(n int) int {
	var frame [64]int
	frame[n%64] = n
	if n == 0 {
		return 0
	}
	return use(n-1) + frame[n%64] - n + 1
}

func set(p *int, v int, b big, l *list) {
	if b.words[v] == v && l.value == v {
		*p = v
	}
}

func args(depth int) (big, *list) {
	var b big
	b.words[42] = 42
	return b, &list{nil, 42}
}

// The arguments of a deferred call are kept while the stack moves: on return, in a panic, in Goexit.
func onReturn(depth int) (x int) {
	y := 0
	func() {
		b, l := args(depth)
		defer set(&y, 42, b, l)
		use(depth * 20)
		runtime.GC()
	}()
	return y
}

func onPanic(depth int) int {
	y := 0
	func() {
		defer func() { recover() }()
		b, l := args(depth)
		defer set(&y, 42, b, l)
		use(depth * 20)
		panic(1)
	}()
	return y
}

func onGoexit(depth int) int {
	y := 0
	done := make(chan bool)
	go func() {
		defer func() { done <- true }()
		b, l := args(depth)
		defer set(&y, 42, b, l)
		use(depth * 20)
		runtime.Goexit()
	}()
	<-done
	return y
}

// A nil function is deferred, and the stack moves before it is called.
func deferNil(depth int) (r interface{}) {
	defer func() { r = recover() }()
	var f func()
	defer f()
	use(depth * 20)
	return "not called"
}

// Deferred functions that need more stack than the panic has left.
func deferUses(depth int) (sum int) {
	defer func() {
		recover()
		sum += use(depth * 10)
	}()
	defer func() { sum += use(depth * 20) }()
	if depth%2 == 0 {
		panic("even")
	}
	return 0
}

// Recovery far down, over frames with deferred calls, while the stack is scanned.
func far(n int, stop int) (r int) {
	defer func() {
		if n == stop {
			recover()
			r = n
		} else if n%16 == 0 {
			runtime.GC()
		}
	}()
	var frame [32]int
	frame[n%32] = n
	if n == 0 {
		runtime.GC()
		panic("far")
	}
	return far(n-1, stop) + frame[n%32] - n
}

// Many deferred calls of one frame, in order, with growing stacks in between.
func many(n int) (sum int) {
	for i := 0; i < n; i++ {
		i := i
		l := &list{nil, i}
		defer func() {
			sum = sum*3%1000003 + l.value
			if i%10 == 0 {
				use(i)
			}
		}()
	}
	return 1
}

// Goroutines that end by Goexit with barriers in their stacks; others take their place.
func exits(n int) int {
	done := make(chan int)
	for i := 0; i < n; i++ {
		go func(i int) {
			defer func() { done <- i }()
			var descend func(k int)
			descend = func(k int) {
				var frame [64]int
				frame[k%64] = k
				if k == 0 {
					runtime.GC()
					runtime.Goexit()
				}
				descend(k - 1)
				use(frame[k%64])
			}
			descend(100)
		}(i)
	}
	sum := 0
	for i := 0; i < n; i++ {
		sum += <-done
	}
	return sum
}

// A panic in a deferred function of a panic, at each level of a recursion.
func chain(n int) {
	defer func() {
		r := recover()
		use(20)
		if n > 0 {
			panic(fmt.Sprint(r, n))
		}
		fmt.Println(r)
	}()
	if n == 5 {
		panic("start ")
	}
	chain(n + 1)
}

func main() {
	for i := 0; i < size; i++ {
		done := make(chan int)
		go func() { done <- onReturn(i) }()
		if got := <-done; got != 42 {
			panic(got)
		}
		go func() { done <- onPanic(i) }()
		if got := <-done; got != 42 {
			panic(got)
		}
		if got := onGoexit(i); got != 42 {
			panic(got)
		}
		if r := fmt.Sprint(deferNil(i)); r != "runtime error: invalid memory address or nil pointer dereference" {
			panic(r)
		}
		go func() { done <- deferUses(i) }()
		if got := <-done; got != 30*i {
			panic(got)
		}
	}
	fmt.Println(far(size*2, size), far(size, 0), many(size*10), exits(size))
	chain(0)
}
