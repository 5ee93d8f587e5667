// Slices: aliasing, growth, copies, nil, slices of slices and of structs.
package main

import "fmt"

const size = 1000 // stress: 60

type item struct {
	name  string
	count int
	links []int
}

func show(name string, s []int) {
	fmt.Println(name, s, len(s), s == nil)
}

func sum(values ...int) int {
	total := 0
	for _, v := range values {
		total += v
	}
	return total
}

func quicksort(s []int) {
	if len(s) < 2 {
		return
	}
	pivot, i := s[len(s)/2], 0
	for j := len(s) - 1; i <= j; {
		for s[i] < pivot {
			i++
		}
		for s[j] > pivot {
			j--
		}
		if i <= j {
			s[i], s[j] = s[j], s[i]
			i++
			j--
		}
		if i > j {
			quicksort(s[:j+1])
			quicksort(s[i:])
			return
		}
	}
}

func grow(s []int, v int) []int {
	s[0] = v
	return append(s, v)
}

func main() {
	var none []int
	show("nil", none)
	show("empty", []int{})
	none = append(none, 1)
	show("appended", none)
	fmt.Println(len(none[:0]), len(none[1:]), cap(make([]int, 2, 10)), len(make([]int, 2, 10)))

	base := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	part := base[2:5]
	fmt.Println(part, len(part), cap(part), part[:8])
	part[0] = 20
	part = append(part, 50)
	fmt.Println(base, part)
	limited := base[2:5:5]
	limited = append(limited, 99)
	limited[0] = -1
	fmt.Println(base, limited, len(base[3:7:8]), cap(base[3:7:8]))

	fmt.Println(copy(base, base[3:]), base)
	fmt.Println(copy(base[3:], base), base)
	fmt.Println(copy(base, []int{}), copy(base[9:], []int{5, 6}), base)

	indexed := []string{2: "two", 5: "five", "six"}
	fmt.Println(len(indexed), indexed[2], indexed[5], indexed[6], indexed[0] == "")

	fmt.Println(sum(), sum(1), sum(1, 2, 3), sum(base...), sum(base[:3]...))

	original := make([]int, 1, 4)
	grown := grow(original, 7)
	fmt.Println(original, grown, original[:2])

	grid := make([][]int, 5)
	for y := range grid {
		grid[y] = make([]int, 4)
		for x := range grid[y] {
			grid[y][x] = x * y
		}
	}
	grid[2] = append(grid[2], 100)
	fmt.Println(grid, len(grid[2]))

	items := []item{{"a", 1, nil}, {name: "b", links: []int{1, 2}}}
	for _, it := range items {
		it.count += 10
	}
	for i := range items {
		items[i].count += 100
		items[i].links = append(items[i].links, i)
	}
	p := &items[0]
	items = append(items, item{"c", 3, []int{9}})
	p.count = -1
	fmt.Println(items[0].count == -1 || items[0].count == 101, items[1], items[2])

	pointers := []*item{&items[1], {"d", 4, nil}}
	pointers[0].count++
	fmt.Println(items[1].count, pointers[1].name, *pointers[1])

	values := make([]int, 0)
	x := uint32(1)
	for i := 0; i < size; i++ {
		x = x*1103515245 + 12345
		values = append(values, int(x>>16)%size)
	}
	quicksort(values)
	sorted := true
	for i := 1; i < len(values); i++ {
		sorted = sorted && values[i-1] <= values[i]
	}
	fmt.Println(len(values), sorted, values[0], values[len(values)-1], sum(values...))

	// A queue that gives up its head: only the tail of each array stays reachable.
	queue := []*item{}
	total := 0
	for i := 0; i < size; i++ {
		queue = append(queue, &item{"q", i, []int{i, 2 * i}})
		if len(queue) > 7 {
			total += queue[0].count + queue[0].links[1]
			queue = queue[1:]
		}
	}
	fmt.Println(len(queue), total, queue[0].count)

	bytes := make([]byte, 5)
	bytes[2] = 200
	bytes = append(bytes, bytes...)
	fmt.Println(bytes, len(bytes))
	bools := append([]bool{true}, false, true)
	fmt.Println(bools)

	s := base[:4]
	s, s[0] = s[1:], 77
	fmt.Println(s, base[0])
	for i, v := range s {
		s[len(s)-1] = 1000
		s = append(s, v)
		fmt.Print(i, ":", v, " ")
	}
	fmt.Println(len(s))
	array := [4]int{1, 2, 3, 4}
	view := array[1:3]
	view[0] = 50
	array[2] = 60
	fmt.Println(array, view, len(array[:0]), cap(view))
	q := &array
	fmt.Println(q[1:], len(q), q[3])
}
