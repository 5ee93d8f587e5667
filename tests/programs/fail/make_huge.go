package main

import "fmt"

func main() {
	n := 1 << 60
	fmt.Println("before")
	fmt.Println(len(make([]int, n)))
}
