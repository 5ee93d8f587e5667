package main

import "fmt"

func main() {
	s := []string{"a", "b"}
	i := uint8(200)
	fmt.Print("no newline at the end")
	fmt.Println(s[i])
}
