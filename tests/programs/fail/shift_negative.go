package main

import "fmt"

func shift(a, n int) int { return a << n }

func main() {
	fmt.Println(shift(1, 4))
	fmt.Println(shift(1, -1))
}
