// Constants: iota, typed and untyped, larger than any type, of every kind.
package main

import "fmt"

const size = 3 // stress: 3

type weekday int

const (
	sunday weekday = iota
	monday
	tuesday
	_
	thursday
)

const (
	_  = iota
	kb = 1 << (10 * iota)
	mb
	gb
	tb
)

const (
	a, b = iota, iota * 10
	c, d
	e, f
)

const (
	red = iota + 'a'
	green
	blue = "blue"
	more
	last = iota
)

type flags uint8

const (
	first flags = 1 << iota
	second
	third
	all = first | second | third
)

const (
	huge    = 1 << 100
	small   = huge >> 98
	product = huge * huge / (huge << 90)
	maximum = 1<<64 - 1
	text    = "con" + "stant"
	length  = len(text)
	truth   = size > 2 && !false
	letter  = 'x' + 1
	half    = 1.0 / 2
	seven   = 7.0
)

var numbers [length]int

func main() {
	const local = size * 2
	fmt.Println(sunday, monday, tuesday, thursday)
	fmt.Println(kb, mb, gb, tb)
	fmt.Println(a, b, c, d, e, f)
	fmt.Println(red, green, blue, more, last)
	fmt.Println(first, second, third, all, all&^second)
	fmt.Println(small, product, uint64(maximum), text, length, truth, letter, half)
	fmt.Println(len(numbers), local, seven/2, int(seven)/2, 7/2, 7/2.0)
	var x float64 = 3
	var y = 2 * x
	var z int64 = seven
	var u uint8 = letter
	fmt.Println(x, y, z, u, x/2, z/2, string(rune(letter)))
	const shift = 3
	fmt.Println(1<<shift, -1>>shift, ^0, ^uint8(0), -5/3, -5%3, 0xff, 0377, 1e3)
	for day := sunday; day <= thursday; day++ {
		switch day {
		case sunday:
			fmt.Print("rest ")
		case monday, tuesday:
			fmt.Print("work ")
		default:
			fmt.Print(int(day), " ")
		}
	}
	fmt.Println()
}
