package main

// A deep stack of frames that refer to old objects, six each, and at its top a loop that allocates
// garbage.

type node struct {
	next  *node
	value int
}

const (
	depth       = 100000
	allocations = 1000000
)

func allocate() int {
	var last *node
	for i := 0; i < allocations; i++ {
		last = &node{last, i}
		if i%8 == 0 {
			last.next = nil
		}
	}
	return last.value
}

func deep(n int, a, b, c, d, e *node) int {
	mine := &node{a, n}
	if n == 0 {
		return allocate()
	}
	result := deep(n-1, mine, a, b, c, d)
	return result + mine.value - n + (a.value - b.value) - (c.value - d.value) + e.value - e.value
}

func main() {
	first := &node{nil, 0}
	println(deep(depth, first, first, first, first, first))
}
