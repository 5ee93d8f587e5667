package main

import "fmt"

func remainder(a, b uint8) uint8 { return a % b }

func main() {
	fmt.Println(remainder(10, 3))
	fmt.Println(remainder(10, 0))
}
