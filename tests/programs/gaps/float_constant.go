// Go computes constants exactly: what it prints is not the sum of two float64s.
package main

import "fmt"

const sum = 0.1 + 0.2

func main() {
	fmt.Println(sum)
}
