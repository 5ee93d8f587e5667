// A third, exactly, times three.
package main

import "fmt"

const third = 1.0 / 3

const huge = 1e300

func main() {
	fmt.Println(third*3 == 1, third*3, third)
	fmt.Println(huge * huge / huge / 1e299)
	var f float32 = 0.1 + 0.7
	fmt.Println(f, float64(f))
}
