package main

import "fmt"

func main() {
	var a [5]int
	n := 6
	fmt.Println(a[2:5])
	fmt.Println(a[2:n])
}
