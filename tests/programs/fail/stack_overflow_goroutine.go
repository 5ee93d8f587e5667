package main

import "fmt"

type node struct {
	next *node
}

func endless(up *node) *node {
	var pad [100]int
	n := &node{up}
	n.next = endless(n)
	pad[0]++
	return n
}

func main() {
	fmt.Println("before")
	go endless(nil)
	<-make(chan int)
}
