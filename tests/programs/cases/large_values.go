package main

import "fmt"

const size = 30 // stress: 1

// Values of many sizes, up to some that Go itself would rather keep in the heap: as locals,
// parameters, results, globals, elements, keys, captured variables.

type page struct {
	head [1000]int
	next *page
	tail [1000]byte
}

type refs [2000]*int

var (
	global  [1 << 20]byte
	pages   [40]page
	book    struct {
		n     int
		pages [60]page
		last  *page
	}
	byPage = map[int]page{}
	byKey  = map[[300]int]string{}
)

func filled(n int) (p page) {
	for i := range p.head {
		p.head[i] = i * n
	}
	p.next = &pages[n%len(pages)]
	p.tail[999] = byte(n)
	return
}

func sum(p page, q page, n int) (page, int, *page) {
	p.head[0] += q.head[1] + n
	return p, p.head[0] + int(q.tail[999]), p.next
}

func deferred(n int) (r refs, p page, err error) {
	defer func() {
		recover()
		r[1] = &n
		p.tail[0]++
	}()
	r[0] = &p.head[0]
	p = filled(n)
	var nothing *page
	p.head[5] = nothing.head[0]
	return
}

func recursive(n int, a [3000]int) int {
	var local [8000]byte
	var pointers refs
	local[n] = byte(n)
	pointers[n] = &a[n]
	a[n] = n
	if n == 0 {
		return len(local)
	}
	r := recursive(n-1, a)
	return r + *pointers[n] + int(local[n])
}

func huge(n int) byte {
	var room [1 << 20]byte
	var other [300 << 10]int32
	room[n], other[n] = byte(n), int32(n)
	if n > 0 {
		return huge(n-1) + room[n] + byte(other[n])
	}
	return 1
}

func captured() (func() int, func(int)) {
	var a [5000]int
	return func() int { return a[10] }, func(n int) { a[10] += n }
}

func main() {
	for i := 1; i <= size; i++ {
		p, q := filled(i), filled(2*i)
		s, n, next := sum(p, q, i)
		global[len(global)-1] = byte(i)
		book.pages[i], book.last, book.n = s, &book.pages[i], i
		pages[i%40] = p
		byPage[i] = s
		delete(byPage, i-3)
		var key [300]int
		key[299] = i
		byKey[key] = fmt.Sprint("key ", i)
		r, d, err := deferred(i)
		get, add := captured()
		add(i)
		add(1)
		ch := make(chan page, 2)
		ch <- p
		ch <- s
		received, ok := <-ch
		var e interface{} = q
		unboxed, is := e.(page)
		total := 0
		for j, v := range p.head {
			p.head[999] = -1
			total += v * (j % 2)
		}
		for _, pg := range book.pages {
			total += pg.head[0]
		}
		array := [2]page{p, s}
		copied := array
		copied[1].head[0] = 0
		list := []page{p, q, s}
		list = append(list, array[0], copied[1])
		f := func(ps ...page) int { return len(ps) + ps[0].head[1] }
		same := array == copied || e == interface{}(q)
		if i <= 2 {
			fmt.Println(n, next == &pages[i%40], s.head[0], global[1<<20-1], book.last.head[0], byPage[i].head[0], len(byPage))
			fmt.Println(byKey[key], len(byKey), r[0] == nil, *r[1], d.tail[0], d.head[2], err, get())
			fmt.Println(received.head[1], ok, unboxed.head[3], is, total, array[1].head[0], len(list), f(list...), f(p, q), same)
			fmt.Println(recursive(12, [3000]int{1: 2}), huge(5), e == interface{}(q), array[0] == p)
		}
	}
}
