// Deferred functions, panics, recover and Goexit: what runs, in which order, and with which values.
package main

import (
	"fmt"
	"runtime"
)

const size = 1000 // stress: 20

type big struct{ a [20]int }

func order() {
	for i := 0; i < 3; i++ {
		defer fmt.Println("deferred", i)
	}
	x := 1
	defer func(v int) { fmt.Println("v, x =", v, x) }(x)
	x = 2
	fmt.Println("body")
}

func named() (n int, s string) {
	defer func() {
		n *= 2
		s += "!"
	}()
	return 21, "ok"
}

func recovered() (n int) {
	defer func() {
		r := recover()
		fmt.Println("recovered:", r)
		n = 7
	}()
	panic("boom")
}

func unnamed() int {
	defer func() { recover() }()
	panic("x")
}

func helper() interface{} { return recover() }

func notDirect() (r interface{}) {
	defer func() {
		r = recover()
	}()
	defer func() {
		fmt.Println("not direct:", helper())
		func() {
			fmt.Println("not direct either:", recover())
		}()
	}()
	panic("direct only")
}

func repanic() {
	defer func() { fmt.Println("outer:", recover()) }()
	defer func() {
		fmt.Println("inner:", recover())
		panic("second")
	}()
	panic("first")
}

func replaced() {
	defer func() { fmt.Println("replaced:", recover()) }()
	defer func() {
		panic("second")
	}()
	panic("first")
}

func nested() {
	defer func() { fmt.Println("nested outer:", recover()) }()
	defer func() {
		defer func() { fmt.Println("nested inner:", recover()) }()
		panic("in deferred")
	}()
	panic("first")
}

func runtimeErrors(k int) {
	defer func() { fmt.Println("error:", recover()) }()
	var p *big
	a := make([]int, 3)
	zero := 0
	var f func()
	var ch chan int
	switch k {
	case 0:
		fmt.Println(a[k+5])
	case 1:
		fmt.Println(p.a[0])
	case 2:
		fmt.Println(1 / zero)
	case 3:
		f()
	case 4:
		close(ch)
	case 5:
		ch = make(chan int)
		close(ch)
		close(ch)
	case 6:
		ch = make(chan int)
		close(ch)
		ch <- 1
	case 7:
		fmt.Println(a[2 : k-6])
	case 8:
		var x, y interface{}
		x, y = a, a
		fmt.Println(x == y)
	case 9:
		defer f()
		fmt.Println("f is nil")
	}
}

func large() (b big) {
	defer func() {
		recover()
		b.a[3] = 4
	}()
	b.a[1] = 2
	panic(b)
}

func deep(n int) int {
	defer func() {
		if n == 5 {
			recover()
		}
	}()
	if n == 0 {
		panic("deep")
	}
	return deep(n-1) + 1
}

func goexit(done chan string) {
	defer func() { done <- fmt.Sprint("goexit: ", recover()) }()
	func() {
		defer func() { done <- "inner" }()
		runtime.Goexit()
	}()
	done <- "not reached"
}

func goexitPanic(done chan string) {
	defer func() { done <- fmt.Sprint("end: ", recover()) }()
	defer func() { done <- fmt.Sprint("recovered: ", recover()) }()
	defer func() { panic("in goexit") }()
	runtime.Goexit()
}

func rounds(n int) (sum int) {
	for i := 0; i < n; i++ {
		func() {
			defer func() { recover(); sum += i }()
			panic(i)
		}()
	}
	return
}

type T struct{ n int }

func (t *T) rec()        { fmt.Println("method:", recover(), t.n) }
func (t T) val(s string) { fmt.Println("value method:", s, t.n) }

func methods() {
	t := T{1}
	defer t.val("a")
	defer t.rec()
	t.n = 2
	panic("m")
}

func panicNil() {
	defer func() { fmt.Println("nil:", recover()) }()
	panic(nil)
}

func main() {
	order()
	fmt.Println(named())
	fmt.Println(recovered())
	fmt.Println(unnamed())
	fmt.Println(notDirect())
	repanic()
	replaced()
	nested()
	for k := 0; k < 10; k++ {
		runtimeErrors(k)
	}
	fmt.Println(large().a[1], large().a[3])
	fmt.Println(deep(10))
	done := make(chan string)
	go goexit(done)
	fmt.Println(<-done)
	fmt.Println(<-done)
	go goexitPanic(done)
	fmt.Println(<-done)
	fmt.Println(<-done)
	methods()
	panicNil()
	fmt.Println(rounds(size))
}
