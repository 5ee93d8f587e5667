// Go refuses this.
package main

import "fmt"

func main() {
	n := 1
	n = "text"
	fmt.Println(n)
}
