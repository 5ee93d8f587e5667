// Floats of 32 bits: rounding at every step, conversion and printing.
package main

import "fmt"

const size = 20 // stress: 10

type point struct{ x, y float32 }

func add(a, b float32) float32 { return a + b }

func main() {
	var x, y float32 = 0.1, 0.2
	fmt.Println(x, y, x+y, x*y, x/y, add(x, -y))
	fmt.Println(float64(x), float32(0.1), float64(float32(16777217)))
	var big float32 = 16777216
	fmt.Println(big, big+1, big+2)
	sum := float32(0)
	for i := 0; i < size; i++ {
		sum += x
	}
	fmt.Println(sum, sum == 2, int(sum*10))
	fmt.Println(point{1.5, x}, []float32{1, 0.5, 0.1})
	fmt.Println(x < y, x == 0.1, float64(x) == 0.1)
	third := float32(1)
	third /= 3
	fmt.Println(third, float64(third))
}
