// Interfaces with methods: calls, embedding, assertions, type switches, errors and Stringers that are printed.
package main

import (
	"fmt"
)

const size = 2000 // stress: 20

type shape interface {
	area() int
	scale(by int) shape
}

type named interface{ name() string }

type both interface {
	shape
	named
}

type square struct{ side int }

func (s square) area() int          { return s.side * s.side }
func (s square) scale(by int) shape { return square{s.side * by} }
func (s square) name() string       { return "square" }

type rect struct {
	w, h  int
	label *string
	pad   [9]int
}

func (r *rect) area() int          { return r.w * r.h }
func (r *rect) scale(by int) shape { return &rect{w: r.w * by, h: r.h * by, label: r.label} }

type number int

func (n number) area() int          { return int(n) }
func (n number) scale(by int) shape { return n * number(by) }

type inner struct{ id int }

func (i inner) name() string { return fmt.Sprint("inner", i.id) }
func (i *inner) bump()       { i.id++ }

type outer struct {
	before int
	inner
	square
}

type byPointer struct {
	*inner
	after string
}

func (o outer) name() string { return "outer of " + o.inner.name() }

type bumper interface{ bump() }

type code int

func (c code) Error() string { return fmt.Sprintf("code %d", int(c)) }

type temperature float64

func (t temperature) String() string { return fmt.Sprintf("%.1f°", float64(t)) }

type pair struct {
	First, Second interface{}
	hidden        temperature
}

type wrapped struct{ err error }

func (w *wrapped) Error() string { return "wrapped: " + w.err.Error() }

func fail(n int) error {
	switch {
	case n == 0:
		return nil
	case n < 10:
		return code(n)
	}
	return &wrapped{fail(n / 10)}
}

func describe(x interface{}) string {
	switch v := x.(type) {
	case nil:
		return "nil"
	case int:
		return fmt.Sprint("int ", v+1)
	case string, bool:
		return fmt.Sprint("string or bool ", v)
	case []int:
		return fmt.Sprint("slice of ", len(v))
	case both:
		return "both " + v.name()
	case shape:
		return fmt.Sprint("shape ", v.area())
	case error:
		return "error " + v.Error()
	case interface{ String() string }:
		return "stringer " + v.String()
	case func() int:
		return fmt.Sprint("func ", v())
	case rect:
		return fmt.Sprint("rect ", v.w)
	default:
		return fmt.Sprintf("other %T", v)
	}
}

func try(f func()) {
	defer func() {
		r := recover()
		err, isError := r.(error)
		if isError {
			fmt.Println(err.Error())
		} else {
			fmt.Println(r)
		}
	}()
	f()
}

func main() {
	label := "r"
	shapes := []shape{square{2}, &rect{w: 3, h: 4, label: &label}, number(5)}
	for _, s := range shapes {
		fmt.Print(s.area(), " ", s.scale(2).area(), "; ")
	}
	fmt.Println()
	var b both = square{7}
	var s shape = b
	n, ok := s.(named)
	fmt.Println(b.area(), b.name(), n.name(), ok)
	_, ok = shapes[1].(named)
	fmt.Println(ok, shapes[1].(*rect).label == &label, shapes[0].(square).side)

	o := outer{1, inner{2}, square{3}}
	list := []interface{}{1, "s", true, nil, []int{1}, o, &o, o.inner, shapes[1], shapes[2], code(3), temperature(36.6),
		func() int { return 9 }, rect{w: 1}, 1.5, struct{}{}, byPointer{&o.inner, "x"}}
	for _, x := range list {
		fmt.Println(describe(x))
	}
	var p bumper = &o
	p.bump()
	p = byPointer{&o.inner, ""}
	p.bump()
	fmt.Println(o.id, o.name())

	fmt.Println(fail(0), fail(3), fail(47), fail(0) == nil, fail(3) == code(3))
	fmt.Println(temperature(20), &pair{temperature(1), code(2), 3}, []temperature{1, 2}, map[string]error{"a": code(1)})
	fmt.Printf("%v %s %d %q %.2f %+v %T\n", code(4), code(5), code(6), temperature(7), temperature(8), pair{1, "x", 2}, code(1))
	sum := 0
	for i := 0; i < size; i++ {
		s := shapes[i%3]
		sum += s.scale(i % 5).area()
		defer func(x interface{}) {
			if v, ok := x.(shape); ok {
				sum += v.area()
			}
		}(s)
	}
	fmt.Println(sum)

	var none shape
	var anything interface{} = "text"
	try(func() { none.area() })
	try(func() { fmt.Println(anything.(int)) })
	try(func() { fmt.Println(anything.(shape)) })
	try(func() { fmt.Println(anything.(named)) })
	try(func() { fmt.Println(none.(named)) })
	try(func() { anything = nil; fmt.Println(anything.(string)) })
	try(func() { panic(code(8)) })
	try(func() { panic(fmt.Sprint("plain")) })
	try(func() { var m map[string]int; m["x"]++ })
}
