// Order of evaluation of calls, in all kinds of places.
package main

import "fmt"

const size = 1 // stress: 1

var trace []int

func t(n int) int {
	trace = append(trace, n)
	return n
}

func f(values ...int) int { return len(values) }

func g(n int) func(int, int) int {
	t(n)
	return func(a, b int) int { return a + b }
}

func p(n int) *int {
	t(n)
	return new(int)
}

func main() {
	a := make([]int, 10)
	a[t(1)], a[t(2)] = t(3), t(4)
	g(5)(t(6), t(7))
	*p(8) = t(9)
	_ = []int{t(10), t(11)}
	_ = f(t(12), f(t(13)), t(14))
	a[t(1)] += t(15)
	if t(16) > t(17) || t(18) > t(16) && t(19) > 0 {
		t(20)
	}
	for i := t(0); i < t(2); i += t(1) {
	}
	switch t(3) {
	case t(1), t(3):
	case t(4):
	}
	fmt.Println(trace)
}
