package main

import (
	"fmt"
	"runtime"
)

const size = 100 // stress: 2

// Methods that make texts may do anything: drop what is being printed, collect, panic.

type item struct{ n int }

var group struct {
	Items  []item
	ByName map[string]item
	First  *item
	Any    interface{}
	Pairs  []two
	Boxed  interface{}
	Map    map[string]two
}

// A value of two parts: the second is read after the first has dropped the whole.
type two struct{ A, B item }

var operands []interface{}

var kept [][]int

// What garbage is made of.
var wrong [50]int

// garbage takes the place of what has been freed, whatever its size.
func garbage() {
	for i := 0; i < 200; i++ {
		list := make([]int, 1+i%50)
		copy(list, wrong[:])
		kept = append(kept, list)
	}
	kept = nil
}

func (i item) String() string {
	group.Items, group.ByName, group.First, group.Any = nil, nil, nil, nil
	group.Pairs, group.Boxed, group.Map = nil, nil, nil
	for i := range operands {
		operands[i] = nil
	}
	runtime.GC()
	garbage()
	return fmt.Sprint("item ", i.n)
}

func fill() {
	group.Items = []item{{1}, {2}, {3}}
	group.ByName = map[string]item{"a": {4}, "b": {5}}
	group.First = &item{6}
	group.Any = item{7}
	group.Pairs = []two{{item{1}, item{2}}, {item{3}, item{4}}}
	group.Boxed = two{item{5}, item{6}}
	group.Map = map[string]two{"m": {item{7}, item{8}}, "n": {item{9}, item{10}}}
	operands = []interface{}{&two{item{11}, item{12}}, []two{{item{13}, item{14}}}, 1}
}

type shrinking struct{ m map[string]item }

func (s *shrinking) String() string {
	for k := range s.m {
		delete(s.m, k)
	}
	s.m = nil
	runtime.GC()
	garbage()
	return "shrunk"
}

type bad struct{ n int }

func (b bad) Error() string {
	runtime.GC()
	panic(fmt.Sprint("error ", b.n))
}

type pointer struct{ name string }

func (p *pointer) String() string { return p.name }

type value struct{ name string }

func (v value) String() string { return v.name }

type index struct{ list []int }

func (i index) String() string { return fmt.Sprint(i.list[len(i.list)]) }

type goes struct{}

func (goes) GoString() string { panic("no syntax") }
func (goes) String() string   { panic(bad{8}) }

type nested struct{}

func (nested) String() string { panic(nested{}) }

type text string

func (t text) String() string { return "text " + string(t) }

func try(f func()) {
	defer func() {
		if r := recover(); r != nil {
			_, same := r.(nested)
			fmt.Println("recovered", same)
		}
	}()
	f()
}

func once() {
	fill()
	fmt.Println(group.Items)
	fill()
	fmt.Println(group.ByName)
	fill()
	fmt.Printf("%v\n", &group)
	fill()
	fmt.Printf("%+v|%s\n", group, group.Any)
	for _, f := range []func(){
		func() { fmt.Println(group.Pairs) },
		func() { fmt.Println(&group) },
		func() { fmt.Println(group.Map) },
		func() { fmt.Println(operands...) },
		func() { fmt.Println([]interface{}{group.Boxed, 1}) },
		func() { fmt.Printf("%v %+v|%v\n", operands...) },
		func() { fmt.Println(fmt.Sprint(operands[1])) },
	} {
		fill()
		f()
	}
	fill()
	list := []interface{}{item{8}, &group.Items, 9, "end"}
	fmt.Println(list...)
	s := &shrinking{map[string]item{"x": {1}, "y": {2}}}
	fmt.Println(s)

	var p *pointer
	var v *value
	var e *bad
	fmt.Println(p, v, e)
	fmt.Printf("%v %s %d %+v %q\n", p, v, []int(nil), e, p)
	fmt.Println(bad{1}, []bad{{2}, {3}}, map[string]error{"k": bad{4}})
	fmt.Printf("%v|%s|%q|%x|%X|%10v|%-5s|\n", bad{1}, bad{2}, bad{3}, bad{4}, bad{5}, bad{6}, bad{7})
	fmt.Printf("%d %t %#v %T\n", bad{1}, bad{2}, bad{3}, bad{4})
	fmt.Println(index{[]int{1}})
	fmt.Printf("%#v|\n", goes{})
	try(func() { fmt.Println(goes{}) })
	fmt.Printf("%d %t %z %s\n", text("a"), text("b"), text("c"), text("d"))
	fmt.Println(fmt.Sprint(bad{1}, bad{2}), fmt.Sprintf("%s", bad{3}), fmt.Sprintln(bad{4}))
	try(func() { fmt.Println(nested{}) })
	try(func() { fmt.Println(fmt.Sprintf("%v", []interface{}{1, nested{}})) })
	defer fmt.Println("deferred", bad{9})
}

func main() {
	for i := range wrong {
		wrong[i] = -1
	}
	for i := 0; i < size; i++ {
		if i < 2 {
			once()
		} else {
			fill()
			_ = fmt.Sprint(&group)
			fill()
			_ = fmt.Sprint(group.Items, group.ByName)
		}
	}
}
