// Bytes that are no UTF-8, written as escapes.
package main

import "fmt"

func main() {
	fmt.Println(len("\xff\xfe"), len("\303\251"), "\303\251", []byte("a\x80b"))
}
