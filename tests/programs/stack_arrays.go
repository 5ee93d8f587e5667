// Arrays in stack frames: used before and after calls that make the stack move and the
// collector run, in loops, through pointers, by closures, with references in them.
package main

import (
	"fmt"
	"runtime"
)

const size = 40 // stress: 8

type object struct {
	value int
	next  *object
}

func newObject(v int) *object { return &object{v, nil} }

// deep makes the stack grow: each frame has an array of its own.
func deep(n int) int {
	var pad [6]int
	for i := range pad {
		pad[i] = n
	}
	if n == 0 {
		runtime.Gosched()
		return 0
	}
	below := deep(n - 1)
	for i := range pad {
		if pad[i] != n {
			panic("an array in a frame has changed")
		}
	}
	return below + pad[n%6]
}

func around(n int) int {
	var a [8]int
	a[0], a[7] = n, n*2
	x := deep(size)
	a[1] = x
	y := deep(size * 2)
	a[2] = y
	sum := 0
	for i := 0; i < len(a); i++ {
		sum += a[i]
	}
	return sum
}

func inLoop(n int) (sum int) {
	for i := 0; i < n; i++ {
		var a [5]int
		a[i%5] = i
		deep(i)
		a[(i+1)%5] += 2
		for _, v := range a {
			sum += v
		}
	}
	return
}

func references() int {
	var a [6]*object
	for i := range a {
		a[i] = newObject(i)
		a[i].next = newObject(i * 10)
	}
	runtime.GC()
	deep(size)
	a[2] = nil
	runtime.GC()
	sum := 0
	for _, o := range a {
		if o != nil {
			sum += o.value + o.next.value
		}
	}
	return sum
}

func throughPointer(n int) int {
	var a [10]int
	p := &a
	for i := range p {
		p[i] = i
		deep(n)
		p[i] += a[i]
	}
	first := &a[0]
	*first = 1000
	deep(n * 3)
	*first++
	return a[0] + p[9]
}

func throughSlice(n int) (sum int) {
	var a [10]int
	s := a[2:8]
	for i := range s {
		s[i] = i + 1
		deep(n)
	}
	a[3] = 100
	for _, v := range s {
		sum += v
	}
	return sum*1000 + len(s)*100 + cap(s)
}

func fill(p *[4]int, n int) {
	deep(n)
	p[n%4] += n
}

func passed() [4]int {
	var a [4]int
	for i := 0; i < size/2; i++ {
		fill(&a, i)
	}
	return a
}

func byClosure() int {
	var a [4]int
	var o [3]*object
	add := func(i int) {
		deep(i)
		a[i%4] += i
		o[i%3] = newObject(i)
	}
	for i := 0; i < size; i++ {
		add(i)
	}
	return a[0]*1000000 + a[1]*10000 + a[2]*100 + a[3] + o[0].value + o[1].value + o[2].value
}

func two(n int) (a, b [3]int) {
	a[0], b[2] = n, n
	deep(n)
	a[1], b[1] = a[0]+1, b[2]+1
	return
}

func nested(n int) [2][3]int {
	var g [2][3]int
	g[1][2] = deep(n)
	row := g[1]
	g[0] = row
	deep(2 * n)
	g[1][0] = g[0][2] + 1
	return g
}

type mixed struct {
	names  [3]string
	slices [2][]int
	count  [2]int
}

func structured(n int) mixed {
	var m mixed
	m.names[1] = "b" + string(rune('a'+n))
	m.slices[0] = []int{n, n + 1}
	deep(n * 2)
	m.slices[1] = append(m.slices[0], n+2)
	m.names[2] = m.names[1] + "c"
	m.count[1] = len(m.slices[1])
	return m
}

func recursive(n int, up *object) int {
	var a [3]*object
	a[n%3] = &object{n, up}
	if n == 0 {
		sum := 0
		for o := a[0]; o != nil; o = o.next {
			sum += o.value
		}
		return sum
	}
	sum := recursive(n-1, a[n%3])
	return sum + a[n%3].value
}

func large(n int) int {
	var a [400]int
	a[n] = n
	if n == 0 {
		return 0
	}
	x := large(n - 1)
	return x + a[n] + a[399]
}

func main() {
	fmt.Println(around(3))
	fmt.Println(inLoop(size / 2))
	fmt.Println(references())
	fmt.Println(throughPointer(size / 2))
	fmt.Println(throughSlice(size / 2))
	fmt.Println(passed())
	fmt.Println(byClosure())
	fmt.Println(two(size))
	fmt.Println(nested(size))
	m := structured(5)
	fmt.Println(m.names[0] == "", m.names[1], m.names[2], m.slices, m.count)
	fmt.Println(recursive(size*3, nil))
	fmt.Println(large(size))
	done := make(chan int)
	for i := 0; i < 4; i++ {
		go func(i int) { done <- around(i) + throughPointer(i) + large(i*2) }(i)
	}
	sum := 0
	for i := 0; i < 4; i++ {
		sum += <-done
	}
	fmt.Println(sum)
}
