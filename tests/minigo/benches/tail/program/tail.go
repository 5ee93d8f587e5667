// A server: clients wait in C, as for a network, and send requests over a channel; two goroutines serve them. A request
// recurses and allocates in each frame, builds lists, calls C that calls back, starts goroutines, or asks a goroutine that
// stays deep. Prints how many gaps of each length the servers have seen, a gap being the time between two readings of the
// clock with nothing waited for in between; how many requests took how long; and the longest gaps with their beginnings.
package main

/*
void waits(long microseconds);
long visits(long n, long seed);
*/
import "C"

import (
	"fmt"
	"runtime"
	"time"
)

const (
	seconds  = 1
	clients  = 32
	servers  = 2
	resident = 100000
	think    = 2000
	listed   = 10
)

type node struct {
	value int
	next  *node
}

// histogram counts nanoseconds, with an error below 1/32.
type histogram struct {
	counts [2048]int64
}

func (h *histogram) record(ns int64) {
	shift := 0
	for v := ns; v >= 64; v >>= 1 {
		shift++
	}
	h.counts[shift*32+int(ns>>uint(shift))]++
}

func (h *histogram) add(other *histogram) {
	for i := range other.counts {
		h.counts[i] += other.counts[i]
	}
}

func (h *histogram) print(name string) {
	for i := range h.counts {
		shift, mantissa := 0, i
		if i >= 64 {
			shift, mantissa = i/32-1, i%32+32
		}
		if h.counts[i] != 0 {
			fmt.Println(name, (mantissa+1)<<uint(shift)-1, h.counts[i])
		}
	}
}

// watch is what one goroutine sees of the clock.
type watch struct {
	last    int64
	gaps    histogram
	longest [listed]int64
	at      [listed]int64
}

func (w *watch) look() {
	t := now()
	gap := t - w.last
	w.gaps.record(gap)
	if gap > w.longest[listed-1] {
		w.keep(gap)
	}
	w.last = t
}

func (w *watch) keep(gap int64) {
	i := listed - 1
	for i > 0 && w.longest[i-1] < gap {
		w.longest[i], w.at[i] = w.longest[i-1], w.at[i-1]
		i--
	}
	w.longest[i], w.at[i] = gap, w.last
}

type request struct {
	seed  int
	reply chan int
}

type question struct {
	depth int
	reply chan int
}

var (
	start     = time.Now()
	requests  = make(chan request, clients)
	questions = make(chan question)
	watches   [servers + 1]watch
	ended     = make(chan *histogram)
	over      = make(chan bool)
)

func now() int64 { return int64(time.Since(start)) }

// push keeps an object in each frame.
//
//go:noinline
func push(depth int, w *watch, up *node) int {
	n := &node{depth, nil}
	if depth&63 == 0 {
		w.look()
	}
	sum := 0
	if depth > 0 {
		sum = push(depth-1, w, n)
	}
	return sum + n.value - up.value
}

func list(n int) int {
	var head *node
	for i := 0; i < n; i++ {
		head = &node{i, head}
	}
	sum := 0
	for ; head != nil; head = head.next {
		sum += head.value
	}
	return sum
}

//export goVisit
func goVisit(seed C.long) C.long {
	return C.long(list(int(seed)%20 + 1))
}

func serve(r request, w *watch) int {
	top := &node{0, nil}
	kind := r.seed % 100
	if r.seed%5000 == 0 {
		return push(200000, w, top)
	} else if kind < 60 {
		return push(200+r.seed%800, w, top)
	} else if kind < 75 {
		return list(500)
	} else if kind < 90 {
		return int(C.visits(20, C.long(r.seed)))
	} else if kind < 95 {
		reply := make(chan int)
		questions <- question{100, reply}
		return <-reply
	} else if kind < 99 {
		reply := make(chan int)
		for i := 0; i < 4; i++ {
			go func() { reply <- list(100) }()
		}
		sum := 0
		for i := 0; i < 4; i++ {
			sum += <-reply
		}
		return sum
	}
	return push(20000, w, top)
}

func server(w *watch) {
	for {
		r, open := <-requests
		if !open {
			break
		}
		w.last = now()
		r.reply <- serve(r, w)
	}
	over <- true
}

// deep stays at the bottom of a deep stack, and answers questions there.
//
//go:noinline
func deep(depth int, w *watch, up *node) int {
	n := &node{depth, nil}
	if depth > 0 {
		return deep(depth-1, w, n) + n.value - up.value
	}
	for {
		q, open := <-questions
		if !open {
			break
		}
		w.last = now()
		q.reply <- push(q.depth, w, n)
	}
	return n.value - up.value
}

func client(number int) {
	took := &histogram{}
	reply := make(chan int)
	state := uint32(number)
	for now() < seconds*1000000000 {
		C.waits(think)
		state = state*1664525 + 1013904223
		sent := now()
		requests <- request{int(state >> 8), reply}
		<-reply
		took.record(now() - sent)
	}
	ended <- took
}

func main() {
	// The first collection: what sees it knows this clock.
	fmt.Println("begins", now())
	runtime.GC()
	for i := 0; i < servers; i++ {
		go server(&watches[i])
	}
	go func() {
		deep(resident, &watches[servers], &node{0, nil})
		over <- true
	}()
	for i := 0; i < clients; i++ {
		go client(i)
	}
	took := &histogram{}
	for i := 0; i < clients; i++ {
		took.add(<-ended)
	}
	close(requests)
	for i := 0; i < servers; i++ {
		<-over
	}
	close(questions)
	<-over
	gaps := &histogram{}
	for i := range watches {
		gaps.add(&watches[i].gaps)
		for j := 0; j < listed; j++ {
			fmt.Println("long", watches[i].longest[j], watches[i].at[j])
		}
	}
	gaps.print("gap")
	took.print("request")
}
