package main

import "fmt"

type point struct{ x, y int }

func (p point) sum() int { return p.x + p.y }

func main() {
	var p *point
	fmt.Println("before")
	fmt.Println(p.sum())
}
