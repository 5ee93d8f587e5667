package main

import "fmt"

type large struct {
	pad  [1 << 20]int
	last int
}

func last(l *large) int { return l.last }

func main() {
	fmt.Println(last(new(large)))
	fmt.Println(last(nil))
}
