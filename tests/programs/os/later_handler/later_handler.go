package main

// int start(void);
import "C"

import "fmt"

// No foreign call ever returns again: the monitor finds the handler.
func main() {
	fmt.Println("start", C.start())
	s := 0
	for i := 0; ; i++ {
		s += i
	}
}
