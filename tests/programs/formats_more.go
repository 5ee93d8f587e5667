// More of fmt: results as strings, widths as arguments, lists of anything.
package main

import "fmt"

const size = 3 // stress: 3

type point struct{ x, y int }

func main() {
	for i := 0; i < size; i++ {
		fmt.Printf("%*d|%-*d|%.*f\n", i+3, i, i+3, i, i, 1.23456)
	}
	fmt.Println([]interface{}{1, "a", nil, 2.5, point{1, 2}, true, 'x'})
	s := fmt.Sprint("sprint", 1, 2, "x") + fmt.Sprintf("|%03d|%v|", 7, &point{3, 4}) + fmt.Sprintln("end", 2.5)
	fmt.Print(len(s), " ", s)
	fmt.Printf("%o|%b|%e|%g|%T|%T|%U|%#x\n", 8, 5, 1234.5678, 1e-7, "s", 1, 0x20ac, 255)
	fmt.Printf("%q\n", string([]byte{'a', 0xff, 0xe2, 0x82, 'b'}))
	n, err := fmt.Println("four")
	fmt.Println(n, err == nil)
}
