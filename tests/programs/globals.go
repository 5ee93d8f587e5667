// Package variables: initialised in order of their dependencies, of every kind, and
// the only references to what they hold.
package main

import (
	"fmt"
	"runtime"
)

const size = 100 // stress: 10

var (
	total  = first + second
	second = double(first)
	first  = start()
	order  []string
	a, b   = pair()
	_      = log("blank")
)

type object struct {
	value int
	next  *object
}

var (
	head    *object
	table   [4]*object
	list    = []*object{{1, nil}, {2, nil}}
	text    = "initial"
	record  = struct{ o *object }{&object{5, nil}}
	apply   = func(x int) int { return x + total }
	channel = make(chan *object, 1)
	matrix  [3][3]int
	ratio   = 0.25
	small   int8
	flag    bool
	self    = &head
)

func log(name string) int {
	order = append(order, name)
	return len(order)
}

func start() int {
	log("first")
	return 10
}

func double(n int) int {
	log("second")
	return 2 * n
}

func pair() (int, string) {
	log("pair")
	return 1, "b"
}

func init() {
	log("init 1")
	small = 100
}

func init() {
	log("init 2")
	small += 100
}

func garbage(n int) {
	for i := 0; i < n; i++ {
		_ = &object{i, &object{i, nil}}
	}
	runtime.GC()
}

func main() {
	fmt.Println(total, first, second, a, b, order, small)
	for i := 0; i < size; i++ {
		head = &object{i, head}
		table[i%4] = &object{i, head}
		garbage(i % 7)
	}
	channel <- &object{77, nil}
	list = append(list, &object{3, nil})
	text += " changed"
	record.o.next = &object{6, nil}
	matrix[1][2] = 12
	ratio *= 2
	flag = !flag
	garbage(size)
	sum := 0
	for o := *self; o != nil; o = o.next {
		sum += o.value
	}
	for _, o := range table {
		sum += o.value + o.next.value
	}
	for _, o := range list {
		sum += o.value
	}
	fmt.Println(sum, text, record.o.value, record.o.next.value, apply(1), (<-channel).value, matrix, ratio, flag)
	*self = nil
	fmt.Println(head == nil)
}
