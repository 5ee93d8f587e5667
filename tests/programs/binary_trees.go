// Binary trees: many short-lived trees beside one that lives throughout.
package main

import "fmt"

const size = 16 // stress: 5

const minDepth = 4

type node struct {
	left, right *node
}

func build(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{build(depth - 1), build(depth - 1)}
}

func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func main() {
	stretch := size + 1
	fmt.Printf("stretch tree of depth %d\t check: %d\n", stretch, build(stretch).count())

	longLived := build(size)

	for depth := minDepth; depth <= size; depth += 2 {
		iterations := 1 << uint(size-depth+minDepth)
		check := 0
		for i := 0; i < iterations; i++ {
			check += build(depth).count()
		}
		fmt.Printf("%d\t trees of depth %d\t check: %d\n", iterations, depth, check)
	}

	fmt.Printf("long lived tree of depth %d\t check: %d\n", size, longLived.count())
}
