package main

import "fmt"

func main() {
	fmt.Println("before")
	defer func() {
		var p *int
		*p = 1
	}()
	panic(3.5)
}
