package main

import "fmt"

var value = compute(0)

func compute(n int) int { return 10 / n }

func main() {
	fmt.Println("not reached", value)
}
