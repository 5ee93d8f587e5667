package main

import "fmt"

func main() {
	s := "text"
	n := 9
	fmt.Println(s[:4])
	fmt.Println(s[:n])
}
