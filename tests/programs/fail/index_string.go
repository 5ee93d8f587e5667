package main

import "fmt"

func last(s string) byte { return s[len(s)-1] }

func main() {
	fmt.Println(last("abc"))
	fmt.Println(last(""))
}
