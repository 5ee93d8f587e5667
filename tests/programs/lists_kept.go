// A table of linked lists that stays alive, and changes a little, while much more is
// allocated and dropped: what a cache in a server looks like to a collector.
package main

import "fmt"

const size = 200000 // stress: 50

// perList is how many nodes a list has on average.
const perList = 10

// churn is how many nodes are allocated for each one that is kept.
const churn = 20

type node struct {
	key, value int
	next       *node
}

// random is a linear congruential generator, the same everywhere.
type random struct{ state uint32 }

func (r *random) next() int {
	r.state = r.state*1664525 + 1013904223
	return int(r.state >> 8)
}

type table struct {
	lists []*node
	nodes int
}

func (t *table) insert(key, value int) {
	at := key % len(t.lists)
	t.lists[at] = &node{key, value, t.lists[at]}
	t.nodes++
}

// dropLast removes the oldest node of the list that key belongs to.
func (t *table) dropLast(key int) {
	at := key % len(t.lists)
	n := t.lists[at]
	if n == nil {
		return
	}
	t.nodes--
	if n.next == nil {
		t.lists[at] = nil
		return
	}
	for n.next.next != nil {
		n = n.next
	}
	n.next = nil
}

func (t *table) checksum() (nodes int, sum int) {
	for _, list := range t.lists {
		for n := list; n != nil; n = n.next {
			if n.value != n.key*7+1 {
				panic("a node has changed")
			}
			nodes++
			sum += n.key
		}
	}
	return
}

// scratch is a short list that dies at once.
func scratch(n int) int {
	var list *node
	for i := 0; i < n; i++ {
		list = &node{i, i, list}
	}
	sum := 0
	for ; list != nil; list = list.next {
		sum += list.value
	}
	return sum
}

func main() {
	r := random{7}
	t := &table{lists: make([]*node, size/perList)}
	for i := 0; i < size; i++ {
		key := r.next()
		t.insert(key, key*7+1)
	}
	nodes, sum := t.checksum()
	fmt.Println("built:", nodes, "nodes, sum of keys", sum)

	wasted := 0
	for i := 0; i < size; i++ {
		wasted += scratch(churn)
		if i%4 == 0 {
			key := r.next()
			t.dropLast(key)
			t.insert(key, key*7+1)
		}
	}
	nodes, sum = t.checksum()
	fmt.Println("after churn:", nodes, "nodes, sum of keys", sum, "wasted", wasted)
	if nodes != t.nodes {
		panic("the table has lost count")
	}
}
