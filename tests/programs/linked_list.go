// Linked lists: reversal in place and by recursion, and merge sort.
package main

import "fmt"

const size = 100000 // stress: 40

type node struct {
	value int
	next  *node
}

// random is a linear congruential generator, the same everywhere.
type random struct{ state uint32 }

func (r *random) next() int {
	r.state = r.state*1664525 + 1013904223
	return int(r.state >> 8)
}

func build(n int) *node {
	r := random{42}
	var list *node
	for i := 0; i < n; i++ {
		list = &node{r.next() % (10 * size), list}
	}
	return list
}

func reverse(list *node) *node {
	var done *node
	for list != nil {
		next := list.next
		list.next = done
		done, list = list, next
	}
	return done
}

func reverseRecursively(list *node) *node {
	if list == nil || list.next == nil {
		return list
	}
	head := reverseRecursively(list.next)
	list.next.next = list
	list.next = nil
	return head
}

// split cuts the list after its first half and returns the second.
func split(list *node) *node {
	slow, fast := list, list.next
	for fast != nil && fast.next != nil {
		slow, fast = slow.next, fast.next.next
	}
	second := slow.next
	slow.next = nil
	return second
}

func merge(a, b *node) *node {
	var head node
	tail := &head
	for a != nil && b != nil {
		if a.value <= b.value {
			tail.next, a = a, a.next
		} else {
			tail.next, b = b, b.next
		}
		tail = tail.next
	}
	if a != nil {
		tail.next = a
	} else {
		tail.next = b
	}
	return head.next
}

func sort(list *node) *node {
	if list == nil || list.next == nil {
		return list
	}
	second := split(list)
	return merge(sort(list), sort(second))
}

func checksum(list *node) (length int, hash uint32) {
	hash = 2166136261
	for ; list != nil; list = list.next {
		length++
		hash = (hash ^ uint32(list.value)) * 16777619
	}
	return
}

func report(name string, list *node) {
	length, hash := checksum(list)
	fmt.Printf("%-9s length %d, hash %08x, begins", name, length, hash)
	for i := 0; i < 5 && list != nil; i++ {
		fmt.Print(" ", list.value)
		list = list.next
	}
	fmt.Println()
}

func main() {
	list := build(size)
	report("built", list)
	list = reverse(list)
	report("reversed", list)
	list = reverseRecursively(list)
	report("again", list)
	list = sort(list)
	report("sorted", list)
	for n := list; n.next != nil; n = n.next {
		if n.value > n.next.value {
			panic("not sorted")
		}
	}
	list = reverse(list)
	report("falling", list)
}
