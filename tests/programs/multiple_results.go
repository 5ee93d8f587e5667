// Functions with 1 to 12 results of mixed types: direct, by closure, by method, passed
// on, and around calls that make the stack grow and the collector run.
package main

import (
	"fmt"
	"runtime"
)

const size = 30 // stress: 5

type object struct{ value int }

func newObject(v int) *object { return &object{v} }

func deep(n int) int {
	if n == 0 {
		return 0
	}
	var pad [12]int
	pad[n%12] = n
	return deep(n-1) + pad[n%12]
}

func one(i int) int                      { return i }
func two(i int) (int, *object)           { return i + deep(3), newObject(i) }
func three(i int) (int, string, *object) { return i, "three", newObject(i) }
func four(i int) (a, b, c, d int)        { a, b, c, d = i, i+1, i+2, i+3; return }
func five(i int) (int, float64, int, float64, string) {
	o := newObject(i)
	return i, float64(i) / 2, o.value, float64(deep(5)), "five"
}
func six(i int) (a int8, b uint16, c int32, d bool, e *object, f []int) {
	return int8(i), uint16(-i), int32(i) << 8, i%2 == 0, newObject(i), []int{i, i}
}
func seven(i int) (float64, float64, float64, float64, float64, float64, float64) {
	x := float64(i)
	return x, x + 1, x + 2, x + 3, x + 4, x + 5, x + float64(deep(4))
}
func eight(i int) (a, b, c, d, e, f, g, h *object) {
	a, b, c, d = newObject(i), newObject(i+1), newObject(i+2), newObject(i+3)
	e, f, g, h = newObject(i+4), newObject(i+5), newObject(i+6), newObject(i+7)
	runtime.Gosched()
	return h, g, f, e, d, c, b, a
}
func nine(i int) (string, int, string, int, string, int, string, int, string) {
	return "a", i, "b", i * 2, "c", i * 3, "d", i * 4, "e"
}
func ten(i int) (int, int, int, int, int, int, int, int, int, int) {
	return i, deep(1), i + 2, deep(2), i + 4, deep(3), i + 6, deep(4), i + 8, deep(5)
}
func eleven(i int) (byte, rune, float64, bool, *object, [2]int, string, []string, object, func() int, int) {
	return byte(i), rune(i) + 'a', 0.5, true, newObject(i), [2]int{i, -i}, "s", []string{"x", "y"}, object{i},
		func() int { return i * 100 }, 11
}
func twelve(i int) (a, b, c, d, e, f, g, h, j, k, l, m int) {
	a, b, c, d, e, f = i, i+1, i+2, i+3, i+4, i+5
	g, h, j, k, l, m = deep(6), i+7, i+8, i+9, i+10, i+11
	return
}

type source struct{ base int }

func (s source) twelve() (int, *object, float64, string, int, *object, float64, string, int, *object, float64, string) {
	b := s.base
	return b, newObject(b), float64(b), "p", b + 1, newObject(b + 1), float64(b + 1), "q", b + 2, newObject(b + 2),
		float64(b + 2), "r"
}
func (s *source) three() (int, int, int) {
	s.base++
	return s.base, s.base * 2, s.base * 3
}

func pass(i int) (int, string, *object) { return three(i + 1) }
func sum(values ...int) (total int) {
	for _, v := range values {
		total += v
	}
	return
}
func take(i int, s string, o *object) string {
	return s + string(rune('0'+i%10)) + string(rune('0'+o.value%10))
}
func swap(a, b, c *object) (x, y, z *object) { return c, a, b }
func structs(i int) (object, object, source) { return object{i}, object{i + 1}, source{i + 2} }
func results(i int) (result [5]int, ok bool) {
	for j := range result {
		result[j] = i * j
	}
	return result, true
}

func main() {
	for i := 0; i < size; i += 4 {
		a1 := one(i)
		a2, o2 := two(i)
		a3, s3, o3 := three(i)
		fmt.Println(a1, a2, o2.value, a3, s3, o3.value)
		fmt.Println(four(i))
		fmt.Println(five(i))
		a, b, c, d, e, f := six(i)
		fmt.Println(a, b, c, d, e.value, f)
		fmt.Println(seven(i))
		p, q, r, s, t, u, v, w := eight(i)
		fmt.Println(p.value, q.value, r.value, s.value, t.value, u.value, v.value, w.value)
		fmt.Println(nine(i))
		fmt.Println(ten(i))
		k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11 := eleven(i)
		fmt.Println(k1, k2, k3, k4, k5.value, k6, k7, k8, k9, k10(), k11)
		fmt.Println(twelve(i))
		fmt.Println(sum(twelve(i)), sum(ten(i)), sum(four(i)))

		src := source{i}
		m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12 := src.twelve()
		fmt.Println(m1, m2.value, m3, m4, m5, m6.value, m7, m8, m9, m10.value, m11, m12)
		fmt.Println(src.three())
		fmt.Println(take(pass(i)), take(three(i)))
		x, y, z := swap(o2, o3, e)
		fmt.Println(x == e, y == o2, z == o3)
		fmt.Println(structs(i))
		fmt.Println(results(i))
	}

	n := 0
	closure := func(step int) (int, *object, string, float64, func() int) {
		n += step
		return n, newObject(n), "closure", float64(n), func() int { n++; return n }
	}
	for i := 0; i < 3; i++ {
		a, o, s, f, g := closure(i + 1)
		deep(20)
		fmt.Println(a, o.value, s, f, g())
	}
	f := twelve
	_, b, _, d, _, _, _, _, _, _, _, m := f(100)
	fmt.Println(b, d, m)
}
