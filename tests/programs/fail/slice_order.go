package main

import "fmt"

func main() {
	s := []int{1, 2, 3, 4}
	low, high := 3, 2
	fmt.Println(len(s))
	fmt.Println(s[low:high])
}
