package main

import (
	"fmt"
	"unsafe"
)

const size = 3 // stress: 2

type pair struct {
	a byte
	b int64
}

type small struct{ a, b, c byte }

type nested struct {
	p pair
	c byte
	small
	e struct{}
}

type pointers struct {
	x *nested
	*pair
	f func()
	i interface{}
	s []int
	t string
	m map[int]int
	ch chan int
}

type table [unsafe.Sizeof(pair{})]byte
type wider [unsafe.Sizeof(table{}) + 1]int16
type last struct {
	n int32
	z [0]int64
}

const (
	word    = unsafe.Sizeof(uintptr(0))
	doubled = 2 * word
	shifted = 1 << unsafe.Sizeof(int32(0))
	aligned = unsafe.Alignof(pair{}.a)
)

func generic(n [unsafe.Sizeof(small{})]int) int { return len(n) }

func main() {
	var n nested
	var p pointers
	q := &p
	var e error
	var a [unsafe.Offsetof(n.c)]int
	for i := 0; i < size; i++ {
		fmt.Println(unsafe.Sizeof(pair{}), unsafe.Sizeof(small{}), unsafe.Sizeof(n), unsafe.Sizeof(p), unsafe.Sizeof(*q), unsafe.Sizeof(q))
		fmt.Println(unsafe.Sizeof([3]pair{}), unsafe.Sizeof([3]byte{}), unsafe.Sizeof([0]int{}), unsafe.Sizeof(struct{}{}), unsafe.Sizeof(e), unsafe.Sizeof(main))
		fmt.Println(unsafe.Sizeof(true), unsafe.Sizeof(int16(0)), unsafe.Sizeof(1.5), unsafe.Sizeof(float32(1)), unsafe.Sizeof('x'), unsafe.Sizeof("x"), unsafe.Sizeof(1))
		fmt.Println(unsafe.Alignof(n), unsafe.Alignof(n.c), unsafe.Alignof(small{}), unsafe.Alignof(int16(0)), unsafe.Alignof(e), unsafe.Alignof(struct{}{}), unsafe.Alignof([4]int32{}))
		fmt.Println(unsafe.Offsetof(n.p), unsafe.Offsetof(n.c), unsafe.Offsetof(n.small), unsafe.Offsetof(n.b), unsafe.Offsetof(n.e), unsafe.Offsetof(n.p.b))
		fmt.Println(unsafe.Offsetof(p.f), unsafe.Offsetof(q.i), unsafe.Offsetof(q.x.c), unsafe.Offsetof((*q).m), unsafe.Offsetof(q.ch))
		fmt.Println(len(table{}), len(wider{}), unsafe.Sizeof(wider{}), len(a), generic([3]int{}), unsafe.Sizeof(last{}))
		fmt.Println(word, doubled, shifted, aligned, unsafe.Sizeof(unsafe.Sizeof(n)), uint8(unsafe.Sizeof(n)), float64(unsafe.Sizeof(n))/2)
	}
	switch unsafe.Sizeof(n) {
	case 32:
		fmt.Println("thirty-two")
	case unsafe.Sizeof(pair{}):
		fmt.Println("as a pair")
	default:
		fmt.Println("neither")
	}
	fmt.Printf("%T %T %v\n", unsafe.Sizeof(n), aligned, unsafe.Sizeof(n) == uintptr(40))
}
