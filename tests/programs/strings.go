// Strings: bytes, runes, slices of strings, concatenation, comparison, conversion.
package main

import "fmt"

const size = 50 // stress: 20

func repeat(s string, n int) string {
	result := ""
	for i := 0; i < n; i++ {
		result += s
	}
	return result
}

func reverse(s string) string {
	runes := []rune(s)
	for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
		runes[i], runes[j] = runes[j], runes[i]
	}
	return string(runes)
}

func index(s, part string) int {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			return i
		}
	}
	return -1
}

func split(s string, separator byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		if s[i] == separator {
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func join(parts []string, separator string) string {
	s := ""
	for i, part := range parts {
		if i > 0 {
			s += separator
		}
		s += part
	}
	return s
}

func itoa(n int) string {
	if n == 0 {
		return "0"
	}
	var digits [20]byte
	i := len(digits)
	negative := n < 0
	for n != 0 {
		digit := n % 10
		if digit < 0 {
			digit = -digit
		}
		i--
		digits[i] = byte('0' + digit)
		n /= 10
	}
	s := string(digits[i:])
	if negative {
		s = "-" + s
	}
	return s
}

func compare(a, b string) {
	fmt.Println(a == b, a != b, a < b, a <= b, a > b, a >= b)
}

func main() {
	s := "hello, world"
	fmt.Println(s, len(s), s[0], s[len(s)-1], s[7:], s[:5], s[3:8], s[:], s[4:4] == "")
	compare("abc", "abd")
	compare("abc", "abc")
	compare("abc", "ab")
	compare("", "a")
	compare("Z", "a")
	compare("\x00", "")

	mixed := "aé€😀z"
	fmt.Println(mixed, len(mixed), len([]rune(mixed)))
	for i, r := range mixed {
		fmt.Print(i, ":", r, " ")
	}
	fmt.Println()
	for i := 0; i < len(mixed); i++ {
		fmt.Print(mixed[i], " ")
	}
	fmt.Println()
	for i := range mixed {
		fmt.Print(i, " ")
	}
	fmt.Println(reverse(mixed), reverse(""), reverse("ab"))

	broken := []byte{'a', 0xff, 0xe2, 0x82, 'b', 0xf0}
	for i, r := range string(broken) {
		fmt.Print(i, ":", r, " ")
	}
	fmt.Println(len([]rune(string(broken))))

	long := repeat("ab", size)
	fmt.Println(len(long), long[size-3:size+3], index(long, "ba"), index(long, "bb"), index(long, ""))

	parts := split("one,two,,three,", ',')
	fmt.Println(len(parts), parts, join(parts, "|"))

	bytes := []byte(s)
	bytes[0] = 'J'
	bytes = append(bytes, '!')
	bytes = append(bytes, " again"...)
	fmt.Println(s, string(bytes), len(bytes))
	n := copy(bytes[2:], "LL")
	fmt.Println(n, string(bytes))

	fmt.Println(string(rune(65)), string(rune(0x20ac)), string([]rune{72, 105, 0x1f600}))
	fmt.Println(itoa(0), itoa(12345), itoa(-9223372036854775808), "n = "+itoa(7*6)+".")

	var empty string
	fmt.Println(empty == "", len(empty), empty+"x"+empty)
	s += "!"
	t := s
	s += "?"
	fmt.Println(s, t)

	raw := `a\n"b"
c`
	fmt.Println(raw, len(raw), "tab\tquote\"back\\slash\u00e9\x41\101")

	switch s[:5] {
	case "hallo":
		fmt.Println("no")
	case "hello":
		fmt.Println("yes")
	}

	words := []string{"pear", "apple", "fig", "date", "cherry", "banana"}
	for i := 1; i < len(words); i++ {
		for j := i; j > 0 && words[j] < words[j-1]; j-- {
			words[j], words[j-1] = words[j-1], words[j]
		}
	}
	fmt.Println(words)
	var built []byte
	for i := 0; i < size; i++ {
		built = append(built, byte('a'+i%26))
	}
	fmt.Println(string(built))
}
