// Go accepts this.
package main

type shape interface {
	area() int
}

type square struct{ side int }

func (s square) area() int { return s.side * s.side }

func main() {
	var s shape = square{3}
	println(s.area())
}
