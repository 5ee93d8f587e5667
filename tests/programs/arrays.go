// Arrays: values, copies, comparison, arrays of arrays and of structs.
package main

import "fmt"

const size = 12 // stress: 6

type cell struct {
	value int
	name  string
}

type board [3][3]byte

func (b board) with(y, x int, v byte) board {
	b[y][x] = v
	return b
}

func (b *board) set(y, x int, v byte) { b[y][x] = v }

func change(a [4]int) [4]int {
	a[0] = 100
	return a
}

func total(a *[4]int) (sum int) {
	for _, v := range a {
		sum += v
	}
	return
}

func multiply(a, b [size][size]int) (c [size][size]int) {
	for i := range a {
		for j := range b[i] {
			for k := 0; k < size; k++ {
				c[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return c
}

var global [size]cell

func main() {
	var zero [3]int
	a := [4]int{1, 2, 3, 4}
	b := a
	b[1] = 20
	fmt.Println(zero, a, b, a == b, a != b, a == [4]int{1, 2, 3, 4}, len(a))
	fmt.Println(change(a), a, total(&a), total(&b))

	auto := [...]string{"x", "y", 4: "z"}
	fmt.Println(len(auto), auto[4], auto[2] == "", auto)

	p := &a
	p[2] = 30
	c := *p
	p[3] = 40
	fmt.Println(a, c, len(p))

	for i, v := range a {
		a[3] = 1000
		a[i] += v
	}
	fmt.Println(a)
	for i := range p {
		p[i] = i * i
	}
	fmt.Println(a)

	grid := [2][3]int{{1, 2, 3}, {4, 5, 6}}
	row := grid[1]
	row[0] = 40
	grid[0] = [3]int{7, 8, 9}
	fmt.Println(grid, row, grid == [2][3]int{{7, 8, 9}, {4, 5, 6}})

	var empty board
	one := empty.with(1, 2, 5)
	one.set(0, 0, 9)
	fmt.Println(empty, one, one == empty, one.with(0, 0, 0).with(1, 2, 0) == empty)

	cells := [3]cell{{1, "one"}, {2, "two"}, {3, "three"}}
	other := cells
	other[1].name += "!"
	fmt.Println(cells, other, cells == other, cells[0] == other[0])

	for i := range global {
		global[i] = cell{i, string(rune('a' + i))}
	}
	copied := global
	global[0].value = -1
	fmt.Println(global[0], copied[0], copied[size-1])

	var m [size][size]int
	for i := range m {
		for j := range m[i] {
			m[i][j] = (i*j + i + j) % 5
		}
	}
	square := multiply(m, m)
	trace := 0
	for i := range square {
		trace += square[i][i]
	}
	fmt.Println(trace, square[1])

	pointers := [2]*cell{{7, "seven"}, nil}
	pointers[1] = pointers[0]
	pointers[1].value++
	fmt.Println(pointers[0].value, pointers[0] == pointers[1])

	slices := [3][]int{{1}, {2, 3}}
	slices[2] = append(slices[2], 4, 5, 6)
	fmt.Println(slices, len(slices[0]))

	i := 1
	i, a[i] = 2, 55
	fmt.Println(i, a)
	functions := [2]func(int) int{func(x int) int { return x + 1 }, func(x int) int { return x * x }}
	fmt.Println(functions[0](6), functions[1](6))
	var none [0]int
	fmt.Println(none, len(none))
}
