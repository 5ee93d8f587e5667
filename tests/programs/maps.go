// Maps: lookups, updates, deletion, loops while they change, keys of every kind, large ones under collection.
package main

import "fmt"

const size = 20000 // stress: 150

type point struct{ x, y int }

type node struct {
	next  *node
	value int
}

type shape struct {
	name  string
	sides [4]int
	owner *node
}

func basics() {
	m := map[string]int{"one": 1, "two": 2}
	m["three"] = 3
	m["two"]++
	m["four"] += 4
	v, ok := m["two"]
	_, missing := m["five"]
	fmt.Println(len(m), m["one"], v, ok, missing, m["five"], m)
	delete(m, "one")
	delete(m, "none")
	fmt.Println(len(m), m)
	var none map[string]int
	fmt.Println(len(none), none["x"], none == nil, none)
	delete(none, "x")
	for range none {
		panic("an entry of a nil map")
	}
	func() {
		defer func() { fmt.Println(recover()) }()
		none["x"] = 1
	}()
}

func keys() {
	p := map[point]string{{1, 2}: "a", {3, 4}: "b"}
	p[point{1, 2}] += "!"
	fmt.Println(p[point{1, 2}], p[point{2, 1}] == "", p)
	f := map[float64]int{1.5: 1, 0: 2}
	f[0]++
	fmt.Println(f)
	a := map[[3]int]bool{{1, 2, 3}: true}
	fmt.Println(a[[3]int{1, 2, 3}], a[[3]int{3, 2, 1}])
	i := map[interface{}]int{1: 1, "1": 2, 1.0: 3, point{1, 1}: 4, nil: 5}
	fmt.Println(i[1], i["1"], i[1.0], i[point{1, 1}], i[nil], i[int8(1)])
	func() {
		defer func() { fmt.Println(recover()) }()
		i[[]int{1}] = 1
	}()
	n := &node{nil, 1}
	ptr := map[*node]int{n: 7}
	fmt.Println(ptr[n], ptr[&node{}])
	b := map[bool]byte{true: 1}
	b[false] = 2
	fmt.Println(b, len(b))
	nested := map[string]map[int][]string{"x": {1: {"a"}}}
	nested["x"][1] = append(nested["x"][1], "b")
	nested["y"] = map[int][]string{}
	fmt.Println(nested, nested["z"][3] == nil)
	large := map[string]shape{}
	large["s"] = shape{"square", [4]int{1, 2, 3, 4}, n}
	s := large["s"]
	large["s"] = shape{}
	fmt.Println(s.name, s.sides, s.owner.value, large["s"].name == "", large["t"].sides[2])
	funcs := map[string]func(int) int{"double": func(x int) int { return 2 * x }}
	fmt.Println(funcs["double"](21))
}

func loops() {
	m := map[int]int{}
	for i := 0; i < size; i++ {
		m[i] = i * i
	}
	sum, count := 0, 0
	for k, v := range m {
		if v != k*k {
			panic("a wrong element")
		}
		sum += k
		count++
		delete(m, k)
		if k%2 == 0 {
			delete(m, k+1)
		}
	}
	fmt.Println(len(m), count >= size/2)
	for i := 0; i < 10; i++ {
		m[i] = i
	}
	seen := map[int]int{}
	for k := range m {
		seen[k]++
		for j := 0; j < 50 && k < 10; j++ {
			m[1000+k*50+j] = j
		}
	}
	for i := 0; i < 10; i++ {
		if seen[i] != 1 {
			panic("an entry that was there all the time comes once")
		}
	}
	fmt.Println(len(m))
}

func lists() {
	m := make(map[int]*node)
	for i := 0; i < size; i++ {
		k := i % 100
		m[k] = &node{m[k], i}
		if i%7 == 0 {
			delete(m, (i*31)%100)
		}
	}
	sum, long := 0, 0
	for _, n := range m {
		for ; n != nil; n = n.next {
			sum += n.value
			long++
		}
	}
	fmt.Println(len(m), long > 0, sum > 0)
	words := make(map[string]int, 10)
	for i := 0; i < size; i++ {
		words[fmt.Sprint("w", i%1000)] += i
	}
	fmt.Println(len(words), words["w7"], words["w149"])
}

func queue() {
	m := map[int]string{}
	for i := 0; i < size; i++ {
		m[i] = fmt.Sprint(i)
		if i >= 10 {
			if m[i-10] != fmt.Sprint(i-10) {
				panic("a lost entry")
			}
			delete(m, i-10)
		}
	}
	fmt.Println(len(m), m[size-1] == fmt.Sprint(size-1))
}

func main() {
	basics()
	keys()
	loops()
	lists()
	queue()
}
