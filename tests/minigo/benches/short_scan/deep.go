package main

// A deep stack, whose frames refer to a list of old objects, and at its top a loop that allocates garbage.

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

func deep(n int, caller *node) int {
	mine := &node{caller, n}
	if n == 0 {
		return allocate()
	}
	result := deep(n-1, mine)
	return result + mine.value - n + caller.value - caller.value
}

func main() {
	println(deep(depth, &node{nil, 0}))
}
