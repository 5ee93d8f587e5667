package main

import "fmt"

type point struct{ x, y int }

func set(p *point, v int) { p.y = v }

func main() {
	p := new(point)
	set(p, 3)
	fmt.Println(*p)
	set(nil, 4)
	fmt.Println("not reached")
}
