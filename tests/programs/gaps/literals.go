// Literals of Go 1.13 and later.
package main

import "fmt"

func main() {
	fmt.Println(0b1011, 0o17, 1_000_000, 0x1p-2, 'a', '\'', '\u00e9', '\x41', '\101')
}
