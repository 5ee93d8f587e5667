// A callback grows the stack from its smallest size to more than 1 MiB: the call out returns to
// where the stack is then, and the caller's locals are as they were.
package main

// long callBack(long depth, long *seen);
import "C"

import (
	"fmt"
	"runtime"
)

const size = 5000 // stress: 60

type node struct {
	next  *node
	value int
}

//export goGrow
func goGrow(depth C.long) C.long {
	return C.long(grow(int(depth), nil))
}

func grow(depth int, list *node) int {
	var frame [24]int
	frame[depth%24] = depth
	list = &node{list, depth}
	if depth == 0 {
		runtime.GC()
		n := 0
		for l := list; l != nil; l = l.next {
			n++
		}
		return n
	}
	return grow(depth-1, list) + frame[depth%24] - depth
}

func caller(a, b, c, d, e, f, g, h int, p *node) (int, bool) {
	var local [8]int
	for i := range local {
		local[i] = a + i
	}
	x, y, z := a*b+c, float64(d)/3, [2]*node{p, p.next}
	var seen C.long
	n := int(C.callBack(C.long(size), &seen))
	ok := int(seen) == n && x == a*b+c && y == float64(d)/3 && z[0] == p && z[1] == p.next && e == 5 && f == 6 && g == 7 && h == 8
	for i := range local {
		ok = ok && local[i] == a+i
	}
	return n, ok && p.value == 1 && p.next.value == 2
}

func main() {
	done := make(chan string)
	for i := 0; i < 4; i++ {
		go func() {
			n, ok := caller(1, 2, 3, 4, 5, 6, 7, 8, &node{&node{nil, 2}, 1})
			done <- fmt.Sprint(n, ok)
		}()
		fmt.Println(<-done)
	}
}
