// Channels: of many element types, buffered and not, closed, ranged over, of channels.
package main

import (
	"fmt"
	"runtime"
)

const size = 200 // stress: 12

type message struct {
	id    int
	text  string
	reply chan string
	data  []int
}

func produce(n int, out chan<- int) {
	for i := 0; i < n; i++ {
		out <- i
	}
	close(out)
}

func square(in <-chan int, out chan<- int) {
	for v := range in {
		out <- v * v
	}
	close(out)
}

func serve(requests chan message, done chan bool) {
	for m := range requests {
		sum := 0
		for _, v := range m.data {
			sum += v
		}
		m.reply <- m.text + " " + string(rune('0'+m.id)) + " " + string(rune('a'+sum))
	}
	done <- true
}

func pingPong(n int) int {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			pong <- v + 1
		}
		close(pong)
	}()
	v := 0
	for i := 0; i < n; i++ {
		ping <- v
		v = <-pong
	}
	close(ping)
	_, ok := <-pong
	if ok {
		panic("pong is open")
	}
	return v
}

func ring(n int) int {
	first := make(chan int)
	in := first
	for i := 0; i < n; i++ {
		out := make(chan int)
		go func(in, out chan int) {
			out <- 1 + <-in
		}(in, out)
		in = out
	}
	go func() { first <- 0 }()
	return <-in
}

func workers(jobs int, n int) (sum int) {
	queue, results := make(chan int, 4), make(chan [2]int)
	for i := 0; i < n; i++ {
		go func(id int) {
			for job := range queue {
				results <- [2]int{job, job*job + 0*id}
			}
		}(i)
	}
	go func() {
		for i := 0; i < jobs; i++ {
			queue <- i
		}
		close(queue)
	}()
	for i := 0; i < jobs; i++ {
		r := <-results
		if r[1] != r[0]*r[0] {
			panic("wrong result")
		}
		sum += r[1]
	}
	return
}

func main() {
	numbers, squares := make(chan int), make(chan int, 3)
	go produce(size, numbers)
	go square(numbers, squares)
	sum := 0
	for v := range squares {
		sum += v
	}
	fmt.Println("sum of squares:", sum)

	buffered := make(chan string, 3)
	buffered <- "a"
	buffered <- "b"
	fmt.Println(len(buffered), cap(buffered), len(numbers), cap(numbers))
	fmt.Print(<-buffered, " ")
	buffered <- "c"
	buffered <- "d"
	close(buffered)
	for s := range buffered {
		fmt.Print(s, " ")
	}
	s, ok := <-buffered
	fmt.Println(s == "", ok)

	closed := make(chan float64, 1)
	closed <- 2.5
	close(closed)
	f, ok := <-closed
	fmt.Print(f, " ", ok, " ")
	f, ok = <-closed
	fmt.Println(f, ok, <-closed)

	fmt.Println("ping-pong:", pingPong(size))
	fmt.Println("ring:", ring(size))
	fmt.Println("workers:", workers(size, 5))

	requests, done := make(chan message), make(chan bool)
	go serve(requests, done)
	reply := make(chan string)
	for i := 0; i < 3; i++ {
		requests <- message{i, "request", reply, []int{i, i * 10}}
		fmt.Println(<-reply)
	}
	close(requests)
	fmt.Println(<-done)

	pointers := make(chan *message, 2)
	pointers <- &message{id: 7}
	pointers <- nil
	p := <-pointers
	p.id++
	fmt.Println(p.id, <-pointers == nil)

	channels := make(chan chan int, 1)
	inner := make(chan int, 1)
	channels <- inner
	inner <- 99
	fmt.Println(<-<-channels)

	functions := make(chan func(int) int)
	go func() {
		base := 10
		functions <- func(x int) int { base++; return x + base }
	}()
	g := <-functions
	first := g(1)
	fmt.Println(first, g(1))

	bytes := make(chan byte, 300)
	for i := 0; i < 300; i++ {
		bytes <- byte(i)
	}
	close(bytes)
	total := 0
	for b := range bytes {
		total += int(b)
	}
	fmt.Println(total)

	signals := make(chan struct{})
	go func() {
		runtime.Gosched()
		close(signals)
	}()
	<-signals
	_, ok = <-signals
	fmt.Println(ok)

	same := inner
	var none chan int
	fmt.Println(same == inner, none == nil, inner == nil, len(none))

	mutex := make(chan bool, 1)
	count, finished := 0, make(chan bool)
	for i := 0; i < 10; i++ {
		go func() {
			for j := 0; j < size; j++ {
				mutex <- true
				count++
				<-mutex
				if j%16 == 0 {
					runtime.Gosched()
				}
			}
			finished <- true
		}()
	}
	for i := 0; i < 10; i++ {
		<-finished
	}
	fmt.Println(count == 10*size)
}
