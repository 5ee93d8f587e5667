package main

import "fmt"

func deep(n int) int {
	if n == 0 {
		panic("at the bottom")
	}
	return deep(n-1) + 1
}

func main() {
	fmt.Println("before")
	fmt.Println(deep(1000))
}
