package main

import "fmt"

func main() {
	s := make([]int, 2, 3)
	n := 3
	fmt.Println(s[:n])
	n++
	fmt.Println(s[:n])
}
