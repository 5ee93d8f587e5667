// A goroutine that was deep once and lives on with a shallow stack: collections give
// its memory back.
package main

import (
	"fmt"
	"runtime"
)

const size = 300000 // stress: 100

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + deep(n-1)
}

func main() {
	fmt.Println("deep:", deep(size))
	for i := 0; i < 8; i++ {
		runtime.GC()
	}
	fmt.Println("and again:", deep(size/100))
}
