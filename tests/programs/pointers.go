// Pointers into the middle of objects keep the whole alive; pointers to pointers,
// to variables, to elements and fields.
package main

import (
	"fmt"
	"runtime"
)

const size = 60 // stress: 8

type inner struct {
	a, b int
	o    *outer
}

type outer struct {
	name  string
	in    inner
	array [8]int
	self  *outer
}

func field(i int) *int {
	o := &outer{name: "field"}
	o.in.b = i
	return &o.in.b
}

func nested(i int) *inner {
	o := &outer{name: "nested"}
	o.self = o
	o.in.o = o
	o.in.a = i
	return &o.in
}

func element(i int) *int {
	o := new(outer)
	for j := range o.array {
		o.array[j] = i * j
	}
	return &o.array[i%8]
}

func middle(i int) []int {
	s := make([]int, 100)
	for j := range s {
		s[j] = i + j
	}
	return s[40:50]
}

func variable(i int) (*int, func() int) {
	v := i
	return &v, func() int { v++; return v }
}

func local(n int) int {
	x, y := n, 2*n
	p, q := &x, &y
	*p += 5
	p, q = q, p
	*p *= 3
	return x*1000 + y + *q
}

func clear(p *int, pp **int) {
	*p = -1
	*pp = nil
}

func churn() {
	for i := 0; i < 20; i++ {
		_ = make([]int, 50)
	}
	runtime.GC()
}

func main() {
	var fields, elements, variables []*int
	var inners []*inner
	var slices [][]int
	var functions []func() int
	for i := 0; i < size; i++ {
		fields = append(fields, field(i))
		elements = append(elements, element(i))
		inners = append(inners, nested(i))
		slices = append(slices, middle(i))
		v, f := variable(i)
		variables = append(variables, v)
		functions = append(functions, f)
		if i%10 == 0 {
			churn()
		}
	}
	churn()
	sum := 0
	for i := range fields {
		sum += *fields[i]
		sum += *elements[i] * 7
		in := inners[i]
		if in.o.self != in.o || &in.o.in != in || in.o.name != "nested" {
			panic("lost")
		}
		sum += in.o.in.a
		sum += slices[i][9] + slices[i][:60][59]
		*variables[i] += 100
		sum += functions[i]()
	}
	fmt.Println(sum, local(3))

	x := 5
	p := &x
	pp := &p
	ppp := &pp
	***ppp = 6
	fmt.Println(x, *p == **pp, p == *pp)
	clear(p, pp)
	fmt.Println(x, p == nil)

	o := &outer{array: [8]int{1, 2, 3}}
	end := &o.array[7]
	s := o.array[5:]
	o = nil
	churn()
	s[2] = 9
	fmt.Println(*end, s)
	n := new(int)
	*n = 3
	m := new(*int)
	*m = n
	**m += 4
	fmt.Println(*n, new(string) == nil, *new(string) == "")
	tail := s[3:]
	churn()
	fmt.Println(len(tail), cap(tail))
}
