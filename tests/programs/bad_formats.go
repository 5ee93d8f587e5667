// What fmt prints for verbs and arguments that do not fit together.
package main

import "fmt"

const size = 1 // stress: 1

func main() {
	fmt.Printf("%d\n", "text")
	fmt.Printf("%s|%s|%t\n", 42, 2.5, "no")
	fmt.Printf("%d %d\n", 1)
	fmt.Printf("%d\n", 1, 2, "three")
	fmt.Printf("%z|\n", 3)
	fmt.Printf("%c|%q|%f\n", "s", 1.5, 7)
	fmt.Printf("%d|%s|%v\n", nil, nil, nil)
	fmt.Printf("%d %s\n", true, []int{1, 2})
}
