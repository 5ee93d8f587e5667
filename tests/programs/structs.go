// Structs: values, pointers, comparison, nesting, embedding and promotion.
package main

import "fmt"

const size = 10 // stress: 10

type point struct{ x, y int }

func (p point) add(q point) point { return point{p.x + q.x, p.y + q.y} }
func (p *point) move(dx, dy int) {
	p.x += dx
	p.y += dy
}

type named struct {
	name string
}

func (n named) hello() string       { return "hello " + n.name }
func (n *named) rename(name string) { n.name = name }

type circle struct {
	point
	*named
	radius int
}

type ring struct {
	circle
	inner int
	name  string
}

type mixed struct {
	a int8
	b int64
	c bool
	d uint16
	e string
	f float64
	g byte
	h []int
	i *point
	j func(int) int
}

type tree struct {
	left, right *tree
	key         int
	value       string
}

func (t *tree) insert(key int, value string) *tree {
	if t == nil {
		return &tree{key: key, value: value}
	}
	if key < t.key {
		t.left = t.left.insert(key, value)
	} else if key > t.key {
		t.right = t.right.insert(key, value)
	} else {
		t.value = value
	}
	return t
}

func (t *tree) walk(visit func(*tree)) {
	if t != nil {
		t.left.walk(visit)
		visit(t)
		t.right.walk(visit)
	}
}

func modify(p point) point {
	p.x = -p.x
	return p
}

func swap(a, b *point) { *a, *b = *b, *a }

type empty struct{}

type pair struct {
	first, second struct{ value int }
}

func main() {
	p := point{1, 2}
	q := p
	q.x = 10
	fmt.Println(p, q, p == q, p == point{1, 2}, p != q)
	fmt.Println(modify(q), q, p.add(q))
	p.move(5, 5)
	(&q).move(1, 1)
	swap(&p, &q)
	fmt.Println(p, q)

	r := &q
	r.y = 99
	s := *r
	s.y = 1
	fmt.Println(q, *r, s, r.add(s), r == &q)
	fmt.Println(r)

	c := circle{point{3, 4}, &named{"disc"}, 5}
	c.move(1, 1)
	c.rename("circle")
	c.point.x *= 2
	fmt.Println(c.x, c.y, c.name, c.hello(), c.radius, c.add(point{1, 1}))

	o := ring{circle: c, inner: 2, name: "ring"}
	o.move(10, 10)
	o.circle.rename("shared")
	fmt.Println(o.x, o.name, o.circle.name, o.hello(), c.hello(), c.x, o.point)

	m := mixed{a: -1, b: 1 << 40, c: true, d: 65535, e: "text", f: 2.5, g: 'g', h: []int{1, 2}, i: &p}
	m.j = func(x int) int { return x + int(m.d) }
	n := m
	n.h[0] = 100
	n.d = 1
	n.i.x = -7
	fmt.Println(m.a, m.b, m.c, m.d, m.e, m.f, m.g, m.h, *m.i, m.j(1), n.j(1), n.d)
	var zero mixed
	fmt.Println(zero.a, zero.b, zero.c, zero.e == "", zero.f, zero.h == nil, zero.i == nil, zero.j == nil)

	var root *tree
	for i := 0; i < size; i++ {
		key := i * 7 % size
		root = root.insert(key, string(rune('a'+key)))
	}
	root.insert(3, "three")
	text, count := "", 0
	root.walk(func(t *tree) {
		text += t.value
		count += t.key
	})
	fmt.Println(text, count)

	anonymous := struct {
		a int
		b string
	}{1, "b"}
	anonymous.a++
	fmt.Println(anonymous, empty{} == empty{})
	var two pair
	two.second.value = 3
	copied := two
	two.first.value = 1
	fmt.Println(two, copied, two == copied)

	points := []point{{1, 2}, {3, 4}}
	for i := range points {
		points[i].move(i, -i)
	}
	last := &points[1]
	last.move(100, 100)
	fmt.Println(points)
	lines := [2]struct{ from, to point }{{point{0, 0}, point{1, 1}}, {to: point{2, 2}}}
	lines[0].to.move(5, 5)
	lines[1].from = lines[0].to
	fmt.Println(lines)
	px := &points[0].x
	*px = 4242
	fmt.Println(points[0], *px)
	pp := &r
	(*pp).x = 1
	(**pp).y = 2
	*pp = &p
	fmt.Println(q, r == &p)
}
