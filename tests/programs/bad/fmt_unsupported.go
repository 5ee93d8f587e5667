// Go accepts this.
package main

import "fmt"

func main() {
	var n int
	fmt.Sscanf("5", "%d", &n)
}
