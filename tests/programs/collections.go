// A graph that changes while the collector runs: objects move between lists, hang on a
// single new reference, and are checked by their contents.
package main

import (
	"fmt"
	"runtime"
)

const size = 20000 // stress: 150

type node struct {
	id    int
	check int
	edges []*node
	name  string
}

func newNode(id int) *node {
	return &node{id: id, check: id ^ 0x5a5a, name: "n" + string(rune('a'+id%26))}
}

func (n *node) verify() int {
	if n.check != n.id^0x5a5a || n.name[1] != byte('a'+n.id%26) {
		panic("a node was lost")
	}
	return n.id
}

type random struct{ state uint64 }

func (r *random) below(n int) int {
	r.state ^= r.state << 13
	r.state ^= r.state >> 7
	r.state ^= r.state << 17
	return int(r.state % uint64(n))
}

func hide(from, to *node) {
	// The only reference goes from the heap to the stack and back to the heap.
	last := len(from.edges) - 1
	n := from.edges[last]
	from.edges[last] = nil
	from.edges = from.edges[:last]
	runtime.Gosched()
	to.edges = append(to.edges, n)
}

func main() {
	r := random{88172645463325252}
	stop, stopped := make(chan bool, 1), make(chan bool)
	go func() {
		for len(stop) == 0 {
			runtime.GC()
			runtime.Gosched()
		}
		stopped <- true
	}()

	roots := make([]*node, 16)
	for i := range roots {
		roots[i] = newNode(i)
	}
	for i := 0; i < size; i++ {
		from, to := roots[r.below(16)], roots[r.below(16)]
		switch r.below(4) {
		case 0, 1:
			from.edges = append(from.edges, newNode(i))
		case 2:
			if len(from.edges) > 0 {
				hide(from, to)
			}
		case 3:
			if len(from.edges) > 40 {
				from.edges = append([]*node{}, from.edges[20:]...)
			} else if len(from.edges) > 0 {
				n := from.edges[0]
				n.edges = append(n.edges, newNode(i+1))
			}
		}
	}
	stop <- true
	<-stopped

	count, sum := 0, 0
	var visit func(n *node)
	visit = func(n *node) {
		count++
		sum += n.verify()
		for _, e := range n.edges {
			visit(e)
		}
	}
	for _, n := range roots {
		visit(n)
	}
	fmt.Println(count, sum)
}
