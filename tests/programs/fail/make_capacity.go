package main

import "fmt"

func main() {
	n := 2
	fmt.Println(cap(make([]int, 1, n)))
	fmt.Println(len(make([]int, 3, n)))
}
