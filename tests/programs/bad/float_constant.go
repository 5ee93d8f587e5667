// Go accepts this, and prints 0.3: it computes constants exactly.
package main

import "fmt"

const sum = 0.1 + 0.2

func main() {
	fmt.Println(sum)
}
