package main

import "fmt"

func main() {
	s := "text"
	n := -1
	fmt.Println(s[n:])
}
