// Methods promoted through several levels of embedding, by value and by pointer.
package main

import "fmt"

type a struct{ n int }

func (x a) get() int   { return x.n }
func (x *a) set(n int) { x.n = n }

type b struct{ *a }

type c struct {
	b
	name string
}

type d struct{ c }

func main() {
	x := d{c{b{&a{1}}, "c"}}
	x.set(5)
	f := x.get
	x.set(6)
	g := x.c.b.set
	g(7)
	fmt.Println(x.get(), f(), x.n, d.get(x), (*d).get(&x))
}
