// A slice that is live around a loop with calls: Cranelift shares and hoists the
// address of the slot that it is spilled to.
package main

import "fmt"

const size = 4 // stress: 4

func first(parts []int) int {
	return parts[0]
}

func main() {
	words := [size]int{1, 2, 3, 4}
	sum := 0
	for i := 0; i < size; i++ {
		sum += first(words[i:])
		fmt.Println(sum)
	}
}
