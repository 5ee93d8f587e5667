package main

import "fmt"

func main() {
	s := make([]int, 3, 10)
	n := 11
	fmt.Println(cap(s[1:2:10]))
	fmt.Println(s[1:2:n])
}
