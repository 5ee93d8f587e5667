package main

import "fmt"

// Arrays that no allocator has cells for are copied for a range statement.

type page struct {
	head [1000]int
	next *page
	tail [1000]byte
}

var book struct {
	n     int
	pages [60]page
	last  *page
}

func odd(p page) (total int) {
	for j, v := range p.head {
		p.head[999] = -1
		total += v * (j % 2)
	}
	return
}

func heads() (total int) {
	for _, pg := range book.pages {
		total += pg.head[0]
	}
	return
}

func main() {
	var p page
	for i := range p.head {
		p.head[i] = i
	}
	fmt.Println(odd(p))
	book.pages[3].head[0] = 4
	fmt.Println(heads())
}
