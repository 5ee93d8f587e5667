// Shifts: counts of all types, counts past the width, of signed and unsigned values.
package main

import "fmt"

const size = 80 // stress: 70

func byUnsigned(x int32, y uint32, n uint) {
	fmt.Println(n, x<<n, x>>n, y<<n, y>>n)
}

func bySigned(x int64, n int) (int64, int64) {
	return x << n, x >> n
}

func bySmall(x int8, y uint8, n uint8, m int8) {
	fmt.Println(x<<n, x>>n, y<<n, y>>n, x<<m, x>>m, y<<m, y>>m)
}

func main() {
	for n := uint(0); n < 36; n += 5 {
		byUnsigned(-123456789, 3987654321, n)
	}
	byUnsigned(-1, 1, 1<<40)
	for n := 0; n < size; n += 9 {
		left, right := bySigned(-1234567890123456789, n)
		fmt.Println(n, left, right)
	}
	for n := uint8(0); n < 12; n += 3 {
		bySmall(-77, 177, n, int8(n))
	}
	bySmall(-1, 255, 200, 100)

	var s uint = 33
	var i = 1 << s
	var j int32 = 1 << s
	var k = uint64(1<<s) + 1
	fmt.Println(i, j, k)
	x := uint8(0x81)
	x <<= 1
	fmt.Println(x)
	x >>= 1
	fmt.Println(x, x<<7>>7, (x<<7)>>7|1)
	var w uint64 = 1
	w <<= 63
	fmt.Println(w, w>>63, w>>62, int64(w)>>63, int64(w)>>62)
}
