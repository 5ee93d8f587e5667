package main

import "fmt"
import _ "runtime"

const size = 5 // stress: 2

const _ = 1 << 3
const (
	_, zero = iota, iota
	_, _
	two, _ = iota, iota
)

var _ = leave("global")
var _, one = leave("pair"), 1
var _, _ = both()
var _ interface{} = leave("typed")

type _ struct{ n int }
type _ interface{ f() }

type padded struct {
	_ int8
	a int
	_ string
	b int
	_ [3]int
}

func (padded) _()  {}
func (*padded) _() {}
func _()           {}
func _()           {}

func leave(s string) string { fmt.Println(s); return s }
func both() (int, int)      { fmt.Println("both"); return 1, 2 }

func params(_ int, _ string, x int, _ ...int) (_ int, r string, _ [4]int) {
	r = fmt.Sprint(x)
	return
}

func (_ padded) method(_, b int) (_, _ int) { return b, b }

func deferred(_ int) (_ int, _ error) {
	defer func() { recover() }()
	panic(1)
}

func main() {
_:
	for i := 0; i < size; i++ {
	_:
		switch {
		case i > 1:
			continue
		}
	_:
		{
			_ = i
			_, _ = i, leave("both blank")
			var _ = leave("local")
			var _, x = leave("first"), i
			_, x = both()
			_ = []int{leave2(1), leave2(2)}
			_ = map[string]int{leave("key"): leave2(3)}
			fmt.Println(params(1, "a", x, 2, 3))
			fmt.Println(padded{a: 1}.method(2, 3))
			fmt.Println(deferred(1))
		}
	_:
		for _, _ = range []int{1, 2} {
			leave("round")
		}
		for _ = range "ab" {
		}
		for _, v := range "ab" {
			_ = v
		}
		const _ = "local"
		type _ int
		func(_, _ int) { leave("literal") }(leave2(4), leave2(5))
		ch := make(chan int, 2)
		ch <- 1
		ch <- 2
		_ = <-ch
		_, _ = <-ch
		var e interface{} = 1
		_, _ = e.(string)
		_, ok := map[int]int{}[1]
		_ = ok
		select {
		case _ = <-ch:
		case _, _ = <-ch:
		default:
			leave("default")
		}
		switch _ = leave("init"); x := e.(type) {
		case int:
			_ = x
		}
	}
	p, q := padded{a: 1, b: 2}, padded{a: 1, b: 2}
	fmt.Println(p == q, interface{}(p) == interface{}(q), map[padded]int{p: 1}[q], zero, two, one)
	fmt.Println(p.a+p.b, fmt.Sprint(padded{}))
}

func leave2(n int) int { fmt.Println(n); return n }
