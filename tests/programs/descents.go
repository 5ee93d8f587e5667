// A recursion of size frames, three times, each with an object of its own that
// the next frame refers to.
package main

import "fmt"

const size = 100000 // stress: 150

type object struct {
	older *object
	depth int
}

func descend(depth int, older *object) int {
	if depth == 0 {
		return older.depth
	}
	o := &object{older, depth}
	below := descend(depth-1, o)
	if o.older != older || o.depth != depth {
		panic("an object of a live frame was lost")
	}
	return below + o.depth&1
}

func main() {
	for i := 0; i < 3; i++ {
		fmt.Println(descend(size, &object{nil, i}))
	}
}
