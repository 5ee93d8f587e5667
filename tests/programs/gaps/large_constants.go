// Untyped constants beyond any type, and conversions of constants at the edges.
package main

import "fmt"

const big = 1<<500 + 1

const max = ^uint64(0)

func main() {
	fmt.Println(big>>499, big%2, max, -1<<63, uint32(1<<32-1), int8(-128), float32(1<<24+1), 1<<62)
	fmt.Println('a'*2.0, 5.0/2, 5/2*1.0, 7.0/2.0 == 3.5, len("abc")*2.0)
}
