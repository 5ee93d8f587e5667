// Control flow: if, switch, for in all forms, labels, goto, order of evaluation.
package main

import "fmt"

const size = 20 // stress: 20

func grade(n int) string {
	switch {
	case n >= 90:
		return "A"
	case n >= 80:
		return "B"
	case n < 0, n == 13:
		return "odd"
	}
	return "C"
}

func falling(n int) (s string) {
	switch n {
	case 1:
		s += "one "
		fallthrough
	case 2:
		s += "two "
		fallthrough
	case 3, 4:
		s += "many "
	default:
		s += "default "
		fallthrough
	case 100:
		s += "hundred "
		if n == 7 {
			break
		}
		s += "more "
	}
	return
}

func withInit(n int) int {
	switch m := n * n; {
	case m > 50:
		return m
	default:
		m++
		return -m
	}
}

func side(name string, value bool) bool {
	fmt.Print(name, " ")
	return value
}

func number(n int) int {
	fmt.Print(n, " ")
	return n
}

func search(grid [][]int, wanted int) (int, int) {
outer:
	for y, row := range grid {
		for x, v := range row {
			switch {
			case v == wanted:
				return x, y
			case v < 0:
				continue outer
			case v > 100:
				break outer
			}
		}
	}
	return -1, -1
}

func collatz(n int) (steps int) {
again:
	if n == 1 {
		return
	}
	steps++
	if n%2 == 0 {
		n /= 2
		goto again
	}
	n = 3*n + 1
	goto again
}

func sign(n int) int {
	if n < 0 {
		return -1
	} else if n == 0 {
		return 0
	} else {
		return 1
	}
}

func main() {
	fmt.Println(grade(95), grade(85), grade(13), grade(-5), grade(50))
	for _, n := range []int{1, 2, 3, 7, 9, 100} {
		fmt.Println(n, falling(n))
	}
	fmt.Println(withInit(3), withInit(8), sign(-9), sign(0), sign(9))

	if side("a", false) && side("b", true) || side("c", true) && !side("d", false) {
		fmt.Println("true")
	}
	if x := number(3) + number(4)*number(5); x > 20 {
		fmt.Println(x)
	} else if y := x * 2; y > 0 {
		fmt.Println(x, y)
	}
	switch number(2) {
	case number(1), number(2), number(3):
		fmt.Println("found")
	case number(4):
		fmt.Println("not here")
	}

	grid := [][]int{{1, 2, -1, 9}, {3, 9, 4}, {200, 5}, {6}}
	fmt.Println(search(grid, 9))
	fmt.Println(search(grid, 6))

	total := 0
	for i := 0; i < size; i++ {
		if i%3 == 0 {
			continue
		}
		if i > 15 {
			break
		}
		total += i
	}
	for i, j := 0, 10; i < j; i, j = i+1, j-2 {
		total += j - i
	}
	n := size
	for n > 0 {
		n -= 7
	}
	for {
		n++
		if n > 3 {
			break
		}
	}
	for range []int{1, 2, 3} {
		total++
	}
	for i := range "abc" {
		total += i
	}
	var k int
	for k = range [5]bool{} {
	}
	array := [3]int{10, 20, 30}
	for k, array[0] = range array {
		total += array[0]
	}
	fmt.Println(total, n, k, array)

loop:
	for i := 0; ; i++ {
		switch i {
		case 1:
			continue loop
		case 5:
			break loop
		}
		for j := 0; j < 3; j++ {
			if j == i {
				continue loop
			}
			fmt.Print(i, j, ",")
		}
	}
	fmt.Println()
	fmt.Println(collatz(27), collatz(1), collatz(97))

	x := 1
	{
		x := 2
		x++
		if x := x * 10; x > 5 {
			fmt.Print(x, " ")
		}
		fmt.Print(x, " ")
	}
	fmt.Println(x)

	a, b, c := 1, 2, 3
	a, b, c = c, a, b
	fmt.Println(a, b, c)
	s := []int{0, 1, 2}
	i := 0
	i, s[i] = 2, 9
	s[0], s[1], s[i] = s[1], s[2], s[0]
	fmt.Println(i, s)
	var y int
	y, _ = search(grid, 3)
	_ = y
	z, y := 5, 6
	fmt.Println(y, z)

	switch x := "b"; x {
	case "a":
		fmt.Println("a")
	case "b", "c":
		fmt.Println("b or c")
	}
	switch 2.5 {
	case 2.5:
		fmt.Println("float")
	}
	switch {
	}
	switch x++; x {
	default:
		fmt.Println("default", x)
	case 100:
	}
	if size > 5 {
		goto end
	}
	fmt.Println("skipped")
end:
	fmt.Println("end")
}
