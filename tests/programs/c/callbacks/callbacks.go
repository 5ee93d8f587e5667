// What may happen in a callback and after it: collections, moves, waiting, panics at every level,
// jumps in C.
package main

/*
#include <stdlib.h>
typedef struct { int *number; long padding[4]; int *other; } pair;
void callAndWait(void);
void release(void);
int inC(void);
int useAfter(pair *p);
int level(int n);
long jumps(int n);
void callBlocking(void);
void callBlockingFree(void);
*/
import "C"

import (
	"fmt"
	"runtime"
)

const size = 20 // stress: 2

type list struct {
	next  *list
	value int
}

func grow(n int) int {
	var frame [32]int
	frame[n%32] = n
	if n == 0 {
		return 0
	}
	return grow(n-1) + 1 + frame[n%32] - n
}

//export goNothing
func goNothing() {}

//export goGrowAndCollect
func goGrowAndCollect() {
	grow(200)
	var garbage *list
	for i := 0; i < 100; i++ {
		garbage = &list{garbage, i}
	}
	runtime.GC()
	grow(100 + garbage.value)
}

// The caller is in C after a callback, and stays there while others collect (Go's issues 7978, 69085).
func collectedAfterCallback() int {
	l := &list{&list{nil, 1}, 2}
	done := make(chan bool)
	go func() {
		for C.inC() == 0 {
			runtime.Gosched()
		}
		runtime.GC()
		runtime.GC()
		C.release()
		done <- true
	}()
	C.callAndWait()
	<-done
	return l.value*10 + l.next.value
}

// What C was given a pointer to stays where it is and alive (Go's issues 10303, 17785).
func pointersSurvive() (int, int) {
	var p C.pair
	number := C.int(5)
	other := new(C.int)
	*other = 6
	p.number, p.other = &number, other
	r := C.useAfter(&p)
	return int(r), int(number)
}

//export goLevel
func goLevel(n C.int) C.int {
	defer func() {
		if r := recover(); r != nil && n%3 != 0 {
			panic(fmt.Sprint(r, " ", n))
		} else if r != nil {
			recovered = fmt.Sprint(recovered, r, " at ", n, "; ")
		}
	}()
	grow(int(n) * 3)
	if n == 0 {
		panic("bottom")
	}
	r := C.level(n - 1)
	if n == 5 {
		panic("again")
	}
	return r + 1
}

var recovered string

//export goStep
func goStep(n C.int) C.int {
	grow(int(n))
	return n + 1
}

var ping, pong = make(chan int), make(chan int)

//export goBlocks
func goBlocks() {
	for i := 0; i < 10; i++ {
		ping <- i
		if got := <-pong; got != i*i {
			panic(got)
		}
	}
}

func blocking() {
	go func() {
		for i := 0; i < 10; i++ {
			n := <-ping
			pong <- n * n
		}
	}()
	C.callBlocking()
}

func main() {
	for i := 0; i < size; i++ {
		result := make(chan string)
		go func() {
			recovered = ""
			a := collectedAfterCallback()
			b, c := pointersSurvive()
			d := C.level(7)
			e := C.jumps(20)
			blocking()
			result <- fmt.Sprintln(a, b, c, d, e, recovered)
		}()
		got := <-result
		if i == 0 {
			fmt.Print(got)
		}
	}
	zero := 0
	for i := 0; i < 100*size; i++ {
		C.callBlockingFree()
		zero++
	}
	fmt.Println(zero == 100*size)
}
