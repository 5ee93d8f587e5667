// Methods of all kinds of types, by value and by pointer, as values and expressions.
package main

import "fmt"

const size = 5 // stress: 5

type counter int

func (c *counter) increment() { *c++ }
func (c counter) double() int { return int(c) * 2 }

type stack []int

func (s *stack) push(v int) { *s = append(*s, v) }
func (s *stack) pop() int {
	old := *s
	v := old[len(old)-1]
	*s = old[:len(old)-1]
	return v
}
func (s stack) depth() int { return len(s) }

type text string

func (t text) twice() text { return t + t }

type transform func(int) int

func (f transform) then(g transform) transform {
	return func(x int) int { return g(f(x)) }
}

type vector [3]float64

func (v vector) dot(w vector) float64 { return v[0]*w[0] + v[1]*w[1] + v[2]*w[2] }
func (v *vector) scale(f float64) *vector {
	for i := range v {
		v[i] *= f
	}
	return v
}

type account struct {
	owner   string
	balance int
	history []int
}

func (a *account) deposit(n int) *account {
	a.balance += n
	a.history = append(a.history, n)
	return a
}
func (a account) preview(n int) account {
	a.balance += n
	return a
}
func (a *account) isNil() bool { return a == nil }

type savings struct {
	account
	rate int
}

func (s *savings) interest() { s.deposit(s.balance * s.rate / 100) }

func main() {
	var c counter
	for i := 0; i < size; i++ {
		c.increment()
	}
	fmt.Println(c, c.double(), counter(21).double())

	var s stack
	for i := 0; i < size; i++ {
		s.push(i * i)
	}
	top := s.pop()
	next := s.pop()
	fmt.Println(top, next, s.depth(), s)

	fmt.Println(text("ab").twice().twice())

	increment := transform(func(x int) int { return x + 1 })
	square := transform(func(x int) int { return x * x })
	fmt.Println(increment.then(square)(4), square.then(increment).then(square)(2))

	v := vector{1, 2, 3}
	fmt.Println(v.dot(vector{1, 1, 1}), v.scale(2).scale(0.5).dot(v), v)

	a := &account{owner: "ada"}
	a.deposit(10).deposit(20).deposit(-5)
	fmt.Println(*a, a.preview(1000).balance, a.balance)
	var nobody *account
	fmt.Println(nobody.isNil(), a.isNil())

	b := savings{account{"bob", 1000, nil}, 5}
	b.interest()
	b.interest()
	fmt.Println(b.balance, b.history, b.preview(1).balance)

	deposit := a.deposit
	deposit(1)
	preview := a.preview
	a.deposit(100)
	fmt.Println(a.balance, preview(0).balance)
	f := (*account).deposit
	f(a, 2)
	g := counter.double
	fmt.Println(a.balance, g(7))
	interest := b.interest
	interest()
	fmt.Println(b.balance)
}
