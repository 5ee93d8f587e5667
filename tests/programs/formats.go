// What fmt prints: every verb with every kind of value that takes it, widths and flags.
package main

import "fmt"

const size = 3 // stress: 3

type point struct{ x, y int }

type celsius float64

type name string

type level uint8

type inner struct {
	name  string
	items []int
}

type outer struct {
	id    int
	in    inner
	p     *point
	flags [2]bool
	ratio float64
	c     byte
}

type wrapped struct{ point }

func main() {
	fmt.Println()
	fmt.Println("a", 1, true, 2.5, 'x', byte(7), "b", "c", nil)
	fmt.Print("a", "b", 1, 2, true, "c", 3.5, 4, "\n")
	fmt.Print("a", 1, "b", "\n")
	fmt.Print(1, 2, "\n")
	fmt.Println(int8(-1), uint8(255), int64(-1<<63), uint64(1<<64-1), uintptr(10))

	fmt.Printf("%d|%5d|%-5d|%05d|%+d|%d\n", 42, 42, 42, 42, 42, -42)
	fmt.Printf("%5d|%-5d|%05d|% d|%2d\n", -42, -42, -42, 42, 12345)
	fmt.Printf("%x|%X|%08x|%8x|%-8x|%x|%x\n", 255, 255, 255, 255, 255, -255, uint8(200))
	fmt.Printf("%x|%X|%x|%10x|\n", "hello", "hello", []byte{1, 171}, "hi")
	fmt.Printf("%c|%c|%c|%3c|%-3c|\n", 'a', 0x20ac, 128512, 'b', 'c')
	fmt.Printf("%q|%q|%q|%q|%q\n", 'a', '\n', '\'', 0x20ac, "it's \"q\"\n\t\\ é \x00")
	fmt.Printf("%s|%8s|%-8s|%.2s|%8.2s|\n", "abc", "abc", "abc", "abc", "abc")
	fmt.Printf("%s|%s|%s\n", []byte("bytes"), name("named"), []string{"a", "b"})
	fmt.Printf("%t|%t|%6t|%-6t|\n", true, false, true, true)
	fmt.Printf("%f|%.2f|%8.3f|%-8.1f|%08.2f|%+.1f|%.0f\n", 3.14159, 3.14159, 3.14159, 3.14159, 3.14159, 3.14159, 3.5)
	fmt.Printf("%v|%v|%v|%v|%v|%v\n", 42, "text", true, 'a', 2.5, byte(1))
	fmt.Printf("%5v|%-5v|%6v|%5v|%05v\n", 42, 42, "text", true, 42)
	fmt.Printf("%d %d %s\n", []int{1, 2}, [3]int8{1, 2, 3}, [2]string{"x", "y"})
	fmt.Printf("%3d|%x|%q\n", []int{1, 22}, []int{10, 11}, []string{"a b", "c"})
	fmt.Printf("%v %v %v\n", []string{"a", "b"}, []bool{true, false}, []float64{1, 0.5})
	fmt.Printf("%d%%|%c%c|%s\n", 50, 'o', 'k', "end")

	p := point{1, -2}
	fmt.Println(p, &p, []point{{1, 2}, {3, 4}}, [1]point{{5, 6}})
	fmt.Printf("%v %+v %v %+v %d\n", p, p, &p, &p, p)
	o := outer{1, inner{"in", []int{1, 2}}, nil, [2]bool{true, false}, 0.5, 'c'}
	fmt.Println(o)
	fmt.Printf("%v\n%+v\n", o, o)
	fmt.Println(&o.in, &[]int{1}, &[2]string{"a", "b"}, wrapped{p})
	fmt.Printf("%+v %+v\n", wrapped{p}, []inner{{"x", nil}})
	fmt.Println(celsius(36.6), name("n"), level(3), []celsius{1, 2.5}, struct {
		a int
		b name
	}{1, "z"})
	fmt.Println([]byte("abc"), [2]byte{1, 2}, []rune("aé"), [][]int{{1}, {2, 3}, nil})
	var none []int
	var pointer *point
	fmt.Println(none, pointer, len(none), []string{}, "", []string{""})
	fmt.Printf("%v %v %d %s|\n", none, pointer, none, "")
	for i := 0; i < size; i++ {
		fmt.Printf("%d|%3d|%-3d|\n", i, i*i*i*i, -i)
	}
	fmt.Print()
	fmt.Print("no newline", "\n")
	fmt.Printf("plain\n")
}
