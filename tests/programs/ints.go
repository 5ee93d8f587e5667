// Integer types: wrap-around, division, conversion, bits.
package main

import "fmt"

const size = 20 // stress: 5

func wrap() {
	var i8 int8 = 127
	var u8 uint8 = 255
	var i16 int16 = 32767
	var u16 uint16 = 65535
	var i32 int32 = 2147483647
	var u32 uint32 = 4294967295
	var i64 int64 = 9223372036854775807
	var u64 uint64 = 18446744073709551615
	var i int = 9223372036854775807
	var u uint = 18446744073709551615
	i8++
	u8++
	i16++
	u16++
	i32++
	u32++
	i64++
	u64++
	i++
	u++
	fmt.Println(i8, u8, i16, u16, i32, u32, i64, u64, i, u)
	i8--
	u8--
	i16--
	u16--
	i32--
	u32--
	i64--
	u64--
	i--
	u--
	fmt.Println(i8, u8, i16, u16, i32, u32, i64, u64, i, u)
	i8 *= 3
	u8 *= 3
	i16 *= 3
	u16 *= 3
	i32 *= 3
	u32 *= 3
	i64 *= 3
	u64 *= 3
	fmt.Println(i8, u8, i16, u16, i32, u32, i64, u64)
	fmt.Println(-i8, -u8, -i16, -u16, -i32, -u32, -i64, -u64)
	fmt.Println(^i8, ^u8, ^i16, ^u16, ^i32, ^u32, ^i64, ^u64)
}

func divide(a, b int) {
	fmt.Println(a, b, a/b, a%b, a/b*b+a%b == a)
}

func divideMin8(a, b int8) { fmt.Println(a, b, a/b, a%b) }
func divideMin64(a, b int64) {
	fmt.Println(a, b, a/b, a%b)
}
func divideUnsigned(a, b uint64) { fmt.Println(a, b, a/b, a%b) }
func divideUnsigned8(a, b uint8) { fmt.Println(a, b, a/b, a%b) }

func convert(v int64) {
	fmt.Println(v, int8(v), uint8(v), int16(v), uint16(v), int32(v), uint32(v), uint64(v), int(v), uint(v), uintptr(v))
	fmt.Println(int64(int8(v)), uint64(int8(v)), int64(uint8(v)), uint32(int16(v)), int32(uint16(v)))
	fmt.Println(float64(v), float64(uint64(v)), float64(uint8(v)), int64(float64(v>>12)))
}

func bits(a, b uint32) {
	fmt.Println(a&b, a|b, a^b, a&^b, ^a)
	a &= b
	a |= 0xf0
	a ^= 0xff00
	a &^= 0x30
	fmt.Println(a)
}

func compare(a, b int8, c, d uint8) {
	fmt.Println(a < b, a <= b, a > b, a >= b, a == b, a != b)
	fmt.Println(c < d, c <= d, c > d, c >= d, c == d, c != d)
}

func gcd(a, b uint16) uint16 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func main() {
	wrap()
	divide(7, 2)
	divide(-7, 2)
	divide(7, -2)
	divide(-7, -2)
	divide(0, 5)
	divideMin8(-128, -1)
	divideMin8(-128, 2)
	divideMin64(-9223372036854775808, -1)
	divideMin64(-9223372036854775808, 10)
	divideUnsigned(18446744073709551615, 10)
	divideUnsigned8(255, 16)
	for _, v := range []int64{0, 1, -1, 127, 128, 255, 256, -129, 65535, 1 << 31, -1 << 31, 1<<63 - 1, -1 << 63} {
		convert(v)
	}
	bits(0xdeadbeef, 0x0f0f0f0f)
	compare(-1, 1, 255, 1)
	compare(-128, -128, 128, 128)

	fmt.Println(gcd(1071, 462), gcd(65535, 255))

	var x uint64 = 88172645463325252
	var sum int32
	for i := 0; i < size; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		sum += int32(x)
	}
	fmt.Println(x, sum)

	b := byte('a')
	r := rune(0x20ac)
	b -= 'a' - 'A'
	fmt.Println(b, r, 'x', b+1)
	var h uint8 = 200
	fmt.Println(h+100, h*2, h/7*7, (h+h)/2, -h)
}
