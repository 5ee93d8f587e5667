package main

import "fmt"

const size = 50 // stress: 3

type speaker interface{ say(n int) string }

type adder interface {
	speaker
	add(n int) adder
}

type dog struct{ name string }

func (d dog) say(n int) string      { return fmt.Sprint(d.name, n) }
func (d *dog) rename(s string) *dog { d.name = s; return d }

type nothing struct{}

func (nothing) say(n int) string { return fmt.Sprint("nothing", n) }

type big struct {
	words [40]int
	name  string
}

func (b big) say(n int) string { return fmt.Sprint(b.name, b.words[n]) }
func (b *big) set(n, v int)    { b.words[n] = v }

type pack struct{ speaker }
type holder struct{ *pack }
type deep struct {
	holder
	n int
}
type mixed struct {
	dog
	adder
}
type named struct {
	*dog
	n int
}
type hides struct {
	dog
	say string
}
type ambiguous struct {
	pack
	nothing
	inner
}
type inner struct{ dog }

type count int

func (c count) say(n int) string  { return fmt.Sprint("count", int(c)+n) }
func (c count) add(n int) adder   { return c + count(n) }
func (c *count) increase(n int)   { *c += count(n) }
func many(s speaker) (string, int, string, int, string) {
	return s.say(1), 1, s.say(2), 2, s.say(3)
}

type wide interface {
	all(a, b, c, d, e, f, g, h int) (int, string, float64, []int, big)
}

func (b *big) all(a, x, c, d, e, f, g, h int) (int, string, float64, []int, big) {
	return a + x + c + d + e + f + g + h, b.name, 1.5, b.words[:3], *b
}

type wraps struct{ wide }

func try(f func()) {
	defer func() { fmt.Println("recovered:", recover()) }()
	f()
}

func main() {
	d := dog{"rex"}
	b := big{name: "big"}
	b.words[2] = 7
	c := count(3)
	for i := 0; i < size; i++ {
		list := []speaker{d, &d, nothing{}, &nothing{}, b, &b, c, &c, pack{d}, &pack{c}, holder{&pack{b}}, deep{holder{&pack{&d}}, 1}, named{&d, 2}, &named{&d, 3}}
		texts := ""
		for _, s := range list {
			f := s.say
			g := speaker.say
			texts += f(2) + " " + g(s, 2) + ";"
			if s.say(1) != f(1) {
				fmt.Println("differs", f(1))
			}
		}
		fs := []func(int) string{d.say, (&d).say, nothing{}.say, b.say, c.say, pack{d}.say, holder{&pack{b}}.say, deep{holder{&pack{c}}, 1}.say, named{&d, 1}.say, mixed{d, c}.dog.say, mixed{d, c}.adder.say}
		for _, f := range fs {
			texts += f(2) + ","
		}
		texts += dog.say(d, 1) + (*dog).say(&d, 2) + big.say(b, 2) + (*big).say(&b, 2) + pack.say(pack{c}, 3)
		texts += (*pack).say(&pack{d}, 4) + holder.say(holder{&pack{d}}, 5) + (*holder).say(&holder{&pack{d}}, 6) + deep.say(deep{holder{&pack{c}}, 1}, 7) + nothing.say(nothing{}, 8) + (*nothing).say(&nothing{}, 9) + named.say(named{&d, 1}, 10)
		set := (*big).set
		set(&b, 3, i)
		increase := c.increase
		increase(1)
		(*count).increase(&c, -1)
		add := adder.add
		texts += fmt.Sprint(add(c, 2), adder(c).add(1).add(2).say(3))
		x, _, y, _, z := many(pack{c})
		texts += x + y + z
		var w wide = wraps{&b}
		n, name, fl, sl, copied := w.all(1, 2, 3, 4, 5, 6, 7, 8)
		all := wraps{&b}.all
		n2, _, _, _, copied2 := all(1, 2, 3, 4, 5, 6, 7, 8)
		texts += fmt.Sprint(n, name, fl, sl, copied.words[2], n2, copied2.name)
		if i < 2 {
			fmt.Println(texts)
		}
	}
	_, ok := interface{}(hides{}).(speaker)
	_, also := interface{}(ambiguous{}).(speaker)
	_, third := interface{}(mixed{}).(speaker)
	_, fourth := interface{}(&mixed{}).(interface{ rename(string) *dog })
	fmt.Println(ok, also, third, fourth)
	var s speaker
	try(func() { f := s.say; f(1) })
	try(func() { pack{}.say(1) })
	try(func() { var h holder; h.say(1) })
	try(func() { var p *pack; f := p.say; f(1) })
	try(func() { var e interface{} = holder{}; e.(speaker).say(1) })
	try(func() { var n *named; fmt.Println(n.say(1)) })
	defer d.say(1)
	go s2(d.say)
	defer speaker.say(d, 1)
}

func s2(f func(int) string) { f(1) }
