// The recursion f(128) with an array of 256 bytes in each frame, each time on a
// fresh goroutine, whose small stack must grow under it.
package main

import "fmt"

const size = 1000 // stress: 12

func f(i int) int {
	var buffer [256]byte
	buffer[i] = byte(i)
	buffer[255-i] = byte(255 - i)
	sum := 0
	if i > 0 {
		sum = i + f(i-1)
	}
	if buffer[i] != byte(i) || buffer[255-i] != byte(255-i) || buffer[(i+128)%256] != other(i) {
		panic("an array in a frame has changed")
	}
	return sum
}

// other is what f(i) has at buffer[(i+128)%256]: zero, unless that is 255-i.
func other(i int) byte {
	if (i+128)%256 == 255-i {
		return byte(255 - i)
	}
	return 0
}

func main() {
	results := make(chan int)
	total := 0
	for i := 0; i < size; i++ {
		go func() {
			results <- f(128)
		}()
		result := <-results
		if result != 129*128/2 {
			panic("wrong result")
		}
		total += result
	}
	fmt.Println("f(128) =", 129*128/2)
	fmt.Println("total of", size, "goroutines:", total)
}
