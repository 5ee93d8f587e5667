// select: with and without default, sends and receives, closed and nil channels, many goroutines.
package main

import "fmt"

const size = 2000 // stress: 30

type node struct {
	next  *node
	value int
}

type large struct{ words [20]int }

func producer(ch chan<- *node, from, n int, done chan<- bool) {
	for i := 0; i < n; i++ {
		ch <- &node{nil, from + i}
	}
	done <- true
}

func merge() {
	a, b, done := make(chan *node), make(chan *node, 3), make(chan bool)
	go producer(a, 0, size, done)
	go producer(b, 1000000, size, done)
	sum, ended := 0, 0
	var list *node
	for ended < 2 {
		select {
		case n := <-a:
			sum += n.value
			n.next, list = list, n
		case n, ok := <-b:
			if !ok {
				panic("closed")
			}
			sum += n.value
		case <-done:
			ended++
		}
	}
	for len(b) > 0 {
		sum += (<-b).value
	}
	fmt.Println(sum == size*(size-1)+size*1000000)
}

func defaults() {
	ch := make(chan int, 1)
	var none chan int
	for i := 0; i < 3; i++ {
		select {
		case ch <- i:
			fmt.Println("sent", i)
		default:
			fmt.Println("full")
		}
	}
	select {
	case v := <-none:
		fmt.Println(v)
	case none <- 1:
		fmt.Println("sent to nil")
	case v := <-ch:
		fmt.Println("got", v)
	}
	select {
	case v := <-ch:
		fmt.Println(v)
	default:
		fmt.Println("empty")
	}
	close(ch)
	select {
	case v, ok := <-ch:
		fmt.Println(v, ok)
	}
	func() {
		defer func() { fmt.Println(recover()) }()
		select {
		case ch <- 1:
		}
	}()
}

func sends() {
	a, b, quit := make(chan int), make(chan large), make(chan bool)
	results := make(chan int)
	go func() {
		sum := 0
		for i := 0; i < size; i++ {
			if i%2 == 0 {
				sum += <-a
			} else {
				l := <-b
				sum += l.words[7]
			}
		}
		close(quit)
		results <- sum
	}()
	sent := 0
loop:
	for i := 0; ; i++ {
		var l large
		l.words[7] = 2
		select {
		case a <- 1:
			sent++
		case b <- l:
			sent += 2
		case <-quit:
			break loop
		}
	}
	fmt.Println(sent == <-results)
}

// Goroutines that wait at many channels, of which few are ever ready: they don't stay in the queues of the others.
func waiting() {
	never, work, out := make(chan int), make(chan int), make(chan int)
	for w := 0; w < 5; w++ {
		go func() {
			sum := 0
			for {
				select {
				case <-never:
					panic("never")
				case n, ok := <-work:
					if !ok {
						out <- sum
						return
					}
					sum += n
				}
			}
		}()
	}
	for i := 0; i < size; i++ {
		work <- i
	}
	close(work)
	total := 0
	for w := 0; w < 5; w++ {
		total += <-out
	}
	fmt.Println(total == size*(size-1)/2)
}

func main() {
	merge()
	defaults()
	sends()
	waiting()
	tick := make(chan int)
	go func() {
		for i := 0; i < 3; i++ {
			tick <- i
		}
		close(tick)
	}()
	for tick != nil {
		select {
		case v, ok := <-tick:
			if !ok {
				tick = nil
				continue
			}
			fmt.Println("tick", v)
		}
	}
}
