// Closures: captured variables, loops, recursion, functions as data.
package main

import "fmt"

const size = 10 // stress: 6

func counter() func() int {
	n := 0
	return func() int {
		n++
		return n
	}
}

func pair() (get func() int, set func(int)) {
	value := 0
	get = func() int { return value }
	set = func(v int) { value = v }
	return
}

func compose(functions ...func(int) int) func(int) int {
	return func(x int) int {
		for _, f := range functions {
			x = f(x)
		}
		return x
	}
}

func apply(f func(int, int) int, values []int) int {
	result := values[0]
	for _, v := range values[1:] {
		result = f(result, v)
	}
	return result
}

type generator struct {
	next func() (int, bool)
}

func upTo(n int) generator {
	i := -1
	return generator{func() (int, bool) {
		i++
		return i, i < n
	}}
}

func (g generator) filter(keep func(int) bool) generator {
	return generator{func() (int, bool) {
		for {
			v, ok := g.next()
			if !ok || keep(v) {
				return v, ok
			}
		}
	}}
}

func curry(a int) func(int) func(int) int {
	return func(b int) func(int) int {
		return func(c int) int { return a*100 + b*10 + c }
	}
}

func parameter(p int, s []int) func() int {
	f := func() int {
		p++
		s[0] = p
		return p
	}
	p *= 2
	return f
}

type node struct{ value int }

func double(x int) int { return 2 * x }

var global = func(x int) int { return x + 1000 }

func main() {
	a, b := counter(), counter()
	a()
	a()
	fmt.Println(a(), b())

	get, set := pair()
	set(42)
	fmt.Println(get())

	// All of them share the one variable of the loop, as in Go before 1.22.
	var shared []func() int
	for i := 0; i < 3; i++ {
		shared = append(shared, func() int { return i })
	}
	for _, f := range shared {
		fmt.Print(f(), " ")
	}
	var own []func() int
	for i := 0; i < 3; i++ {
		i := i
		own = append(own, func() int { i += 10; return i })
	}
	for _, f := range own {
		fmt.Print(f(), " ", f(), " ")
	}
	var ranged []func() int
	for i, v := range []int{5, 6, 7} {
		ranged = append(ranged, func() int { return i*100 + v })
	}
	for _, f := range ranged {
		fmt.Print(f(), " ")
	}
	fmt.Println()

	var fibonacci func(int) int
	fibonacci = func(n int) int {
		if n < 2 {
			return n
		}
		return fibonacci(n-1) + fibonacci(n-2)
	}
	fmt.Println(fibonacci(size))

	var even, odd func(int) bool
	even = func(n int) bool { return n == 0 || odd(n-1) }
	odd = func(n int) bool { return n != 0 && even(n-1) }
	fmt.Println(even(size), odd(size))

	offset := 5
	f := compose(double, func(x int) int { return x + offset }, global)
	offset = 6
	fmt.Println(f(10))
	fmt.Println(apply(func(a, b int) int { return a*2 + b }, []int{1, 2, 3, 4}))

	total := 0
	g := upTo(3 * size).filter(func(v int) bool { return v%2 == 1 }).filter(func(v int) bool { return v%3 == 0 })
	for v, ok := g.next(); ok; v, ok = g.next() {
		total += v
	}
	fmt.Println(total)
	fmt.Println(curry(1)(2)(3))

	slice := []int{0}
	h := parameter(10, slice)
	first := h()
	second := h()
	fmt.Println(first, second, slice)

	fmt.Println(func(x, y int) int { return x - y }(9, 4))
	func() { total = -1 }()
	fmt.Println(total)

	nodes := []*node{}
	add := func(v int) { nodes = append(nodes, &node{v}) }
	for i := 0; i < size; i++ {
		add(i * i)
	}
	sum := 0
	each := func(visit func(*node)) {
		for _, n := range nodes {
			visit(n)
		}
	}
	each(func(n *node) { sum += n.value; n.value = 1 })
	each(func(n *node) { sum += n.value })
	fmt.Println(sum, len(nodes))

	text, number, flag, ratio := "a", int8(1), false, 0.5
	array := [3]int{1, 2, 3}
	point := struct{ x, y int }{1, 2}
	change := func() {
		text += "b"
		number--
		flag = !flag
		ratio *= 3
		array[1] = 20
		point.y = number32(number)
	}
	change()
	change()
	fmt.Println(text, number, flag, ratio, array, point)

	table := []struct {
		name string
		do   func(float64, float64) float64
	}{
		{"add", func(a, b float64) float64 { return a + b }},
		{"mul", func(a, b float64) float64 { return a * b }},
	}
	for _, t := range table {
		fmt.Print(t.name, " ", t.do(1.5, 4), " ")
	}
	var none func()
	fmt.Println(none == nil, f != nil)
}

func number32(n int8) int { return int(n) * 32 }
