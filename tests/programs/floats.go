// Floats: arithmetic, comparison, conversion, special values, printing.
package main

import "fmt"

const size = 30 // stress: 10

func divide(a, b float64) float64 { return a / b }

func sqrt(x float64) float64 {
	z := x / 2
	for i := 0; i < size; i++ {
		z -= (z*z - x) / (2 * z)
	}
	return z
}

func compare(a, b float64) {
	fmt.Println(a < b, a <= b, a > b, a >= b, a == b, a != b)
}

func truncate(x float64) {
	fmt.Println(x, int(x), int64(x), int32(x), int(-x))
}

type point struct{ x, y float64 }

func (p point) scale(f float64) point { return point{p.x * f, p.y * f} }

func mixed(i int, f float64, j int, g float64, h float64) (float64, int, float64) {
	return f*g + h, i * j, float64(i) + float64(j)
}

func main() {
	fmt.Println(1.5+2.25, 3.0*0.5, 1.0-4.5, -2.5)
	x, y := 0.1, 0.2
	fmt.Println(x+y, x*y, x-y, x/y)
	fmt.Println(sqrt(2), sqrt(1234567))
	compare(1, 2)
	compare(2, 2)
	compare(-1, -2)

	zero := 0.0
	inf := divide(1, zero)
	nan := divide(zero, zero)
	fmt.Println(inf, -inf, nan, divide(-1, zero), divide(1, inf), divide(-1, inf))
	compare(nan, nan)
	compare(inf, nan)
	compare(-inf, inf)
	fmt.Println(zero == -zero, 1/divide(-1, inf))

	truncate(3.99)
	truncate(0.5)
	truncate(-123456.789)
	truncate(2147483000.75)

	for _, v := range []float64{0, 1, 100, 123456, 1234567, 12345678, 100000, 1000000, 20000000,
		1e20, 1e21, 123456789012345680, 0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000012345, 1e-7,
		3.141592653589793, 2.5, 1e100, 1.7976931348623157e308, 5e-324, 0.3, 1024.5, 16777216} {
		fmt.Println(v, -v)
	}
	fmt.Printf("%f %f %f %f\n", 1.0, -2.5, 1e10, 0.0000001)
	fmt.Printf("[%8.3f] [%-8.2f] [%08.3f] [%.0f] [%.10f] [%10f]\n", 3.14159, 2.71828, -1.5, 2.5, 0.1, 1.25)
	fmt.Printf("[%.0f] [%.0f] [%.0f] [%.1f] [%.2f]\n", 0.5, 1.5, 3.5, 0.25, 2.675)
	fmt.Printf("%f %8.2f %v\n", inf, nan, -inf)
	fmt.Printf("%v %v\n", 1e6, 123.0)

	p := point{1.5, -2}
	fmt.Println(p, p.scale(2), p == point{1.5, -2})
	f, i, g := mixed(3, 1.5, 4, 2.5, 0.25)
	fmt.Println(f, i, g)

	sum := 0.0
	for i := 1; i <= size; i++ {
		sum += 1 / float64(i)
	}
	fmt.Printf("%.12f\n", sum)
	values := []float64{3.5, 1.25, 2}
	values = append(values, 4)
	values[1] *= 2
	values[0]++
	fmt.Println(values, len(values))
	var a [3]float64
	a[1] = 0.5
	fmt.Println(a)
	fmt.Println(float64(7)/2, float64(7/2), float64(uint64(1)<<63), float64(-1<<63))
}
