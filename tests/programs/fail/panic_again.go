package main

import "fmt"

func f(n int) {
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprint("again ", r))
		}
	}()
	if n == 0 {
		panic("BOOM")
	}
	f(n - 1)
}

func main() {
	fmt.Println("before")
	defer fmt.Println("deferred functions run first")
	f(2)
}
