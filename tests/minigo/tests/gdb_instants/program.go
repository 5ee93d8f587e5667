// Recursions of many shapes on one goroutine: what it does depends on nothing from outside. Every function calls leaf before it
// returns, so that the stacks at the calls of leaf tell all stacks that there are in between.
package main

import "runtime"

var (
	state  = 4711
	leaves = 0
)

type object struct{ n int }

type shape interface{ descend(depth int) int }

func leaf(o *object) int {
	leaves++
	return o.n
}

func narrow(depth int) int {
	o := &object{depth}
	sum := leaf(o)
	return sum + choose(depth-1) + o.n
}

func wide(depth int) int {
	var kept [24]*object
	for i := 0; i < len(kept); i++ {
		kept[i] = &object{depth * i}
	}
	sum := choose(depth - 1)
	for i := 0; i < len(kept); i++ {
		sum += kept[i].n
	}
	return sum
}

func twice(depth int) int {
	o := &object{depth}
	return choose(depth-1) + o.n*choose(depth-2) + o.n
}

func collecting(depth int) int {
	o := &object{depth}
	sum := choose(depth - 1)
	runtime.GC()
	return sum + leaf(o)
}

func (o *object) descend(depth int) int {
	return choose(depth-1) + o.n
}

func choose(depth int) int {
	if depth <= 0 {
		runtime.GC()
		return leaf(&object{depth})
	}
	state = (state*1103515245 + 12345) & 0x7fffffff
	switch (state >> 16) % 6 {
	case 0:
		return narrow(depth)
	case 1:
		return wide(depth)
	case 2:
		return twice(depth)
	case 3:
		return collecting(depth)
	case 4:
		var s shape = &object{depth}
		return s.descend(depth)
	}
	return func(n int) int { return choose(n-1) + depth }(depth)
}

func main() {
	for leaves < 5000 {
		choose(16)
	}
	println(state)
}
