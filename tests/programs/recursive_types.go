package main

import "fmt"

const size = 20 // stress: 2

type first interface {
	next() second
	value() int
}
type second interface {
	next() first
	same(first, second) bool
}
type third interface {
	first
	third() third
}
type self interface{ with(self) self }
type tower interface {
	visit(func(tower) map[string]tower) []tower
}

type a struct{ n int }
type b struct{ n int }

func (x a) next() second              { return b{x.n + 1} }
func (x a) value() int                { return x.n }
func (x a) third() third              { return x }
func (x b) next() first               { return a{x.n + 1} }
func (x b) same(f first, s second) bool { return f.value() == x.n && s == second(x) }

type fun func(fun) fun
type list []list
type dict map[string]dict
type ptr *ptr
type channel chan channel
type array [2]*array
type tree struct {
	left, right *tree
	children    []tree
	byName      map[string]tree
	walk        func(tree) *tree
	any         interface{ f(tree) tree }
	ch          chan tree
	array       *[3]tree
}
type x1 struct{ y []y1 }
type y1 struct{ z map[int]*z1 }
type z1 struct {
	x func(x1) y1
	w w1
}
type w1 interface{ g(z1) (x1, y1) }
type selfish struct{ n int }

func (s selfish) with(o self) self { return selfish{s.n + o.(selfish).n} }
func (t tree) visit(f func(tower) map[string]tower) []tower {
	return []tower{f(t)["a"]}
}
func (z z1) g(o z1) (x1, y1) { return x1{[]y1{{map[int]*z1{1: &o}}}}, y1{} }

func local() int {
	type node struct {
		next *node
		n    int
	}
	type walker interface{ walk(*node) }
	var head *node
	for i := 0; i < 3; i++ {
		head = &node{head, i}
	}
	n := 0
	for ; head != nil; head = head.next {
		n = 10*n + head.n
	}
	return n
}

func main() {
	for i := 0; i < size; i++ {
		var f first = a{i}
		s := f.next()
		t := third(a{i})
		n := s.next().next().next().value() + t.third().third().value()
		same := s.same(a{i + 1}, s)
		var id fun
		id = func(g fun) fun {
			if g == nil {
				return id
			}
			return g
		}
		l := list{list{}, list{list{}, nil}}
		d := dict{"a": dict{"b": nil}, "c": nil}
		var p ptr
		p = &p
		c := make(channel, 1)
		c <- c
		var ar array
		ar[1] = &ar
		tr := tree{children: []tree{{}, {}}, byName: map[string]tree{"x": {}}}
		tr.left, tr.array = &tr, &[3]tree{{}, tr}
		tr.walk = func(t tree) *tree { return t.left }
		z := z1{}
		z.w = z
		xs, _ := z.w.g(z)
		var w tower = tr
		towers := w.visit(func(t tower) map[string]tower { return map[string]tower{"a": t} })
		if i < 2 {
			fmt.Println(n, same, id(id)(nil) != nil, len(l), len(l[1]), len(d), len(d["a"]), *p == p, <-c == c, ar[1] == &ar)
			fmt.Println(tr.walk(tr) == &tr, len(tr.array[1].children), len(xs.y[0].z), len(towers), self(selfish{1}).with(selfish{2}), local())
			fmt.Printf("%T %T %T %T %T\n", f, l, d, id, tr.any)
			fmt.Println(l, d)
		}
	}
}
