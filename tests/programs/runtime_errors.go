package main

import (
	"fmt"
	"runtime"
)

const size = 20 // stress: 1

type failure interface {
	error
	RuntimeError()
}

type other interface{ missing() }

type object struct{ n int }

func (o object) method() int { return o.n }

type reader interface{ method() int }

func try(name string, f func()) {
	defer func() {
		r := recover()
		_, isRuntime := r.(runtime.Error)
		_, isFailure := r.(failure)
		_, isOther := r.(other)
		e, isError := r.(error)
		text := "none"
		if isError {
			text = e.Error()
		}
		fmt.Println(name, isRuntime, isFailure, isError, isOther, text)
		fmt.Printf("%v|%s|%T\n", r, r, r)
		switch v := r.(type) {
		case runtime.Error:
			v.RuntimeError()
		case error:
			fmt.Println("only an error")
		default:
			fmt.Println("no error", v)
		}
	}()
	f()
}

func main() {
	var p *int
	var o *object
	var array *[4]int
	var x, y interface{} = 1, []int{1}
	var none interface{}
	var r reader
	var f func()
	var m map[string]int
	n := 0
	five := 5
	minus := -1
	for i := 0; i < size; i++ {
		if i == 1 {
			break
		}
		try("nil read", func() { n = *p })
		try("nil write", func() { *p = 1 })
		try("nil field", func() { n = o.n })
		try("nil array", func() { n = array[n] })
		try("nil func", func() { f() })
		try("nil interface", func() { r.method() })
		try("divide", func() { n = 1 / n })
		try("remainder", func() { n = 1 % n })
		try("index", func() { n = []int{}[five] })
		try("negative", func() { n = []int{1}[minus] })
		try("string", func() { _ = "abc"[five] })
		try("slice", func() { _ = []int{1}[five:] })
		try("slice high", func() { _ = []int{1}[:five] })
		try("slice string", func() { _ = "abc"[five:] })
		try("slice three", func() { _ = []int{1}[0:1:five] })
		try("assert", func() { _ = x.(string) })
		try("assert interface", func() { _ = x.(failure) })
		try("assert none", func() { _ = none.(int) })
		try("assert none interface", func() { _ = none.(failure) })
		try("compare", func() { _ = y == y })
		try("hash", func() { _ = map[interface{}]int{y: 1} })
		try("nil map", func() { m["a"] = 1 })
		try("close nil", func() { close(chan int(nil)) })
		try("close twice", func() { c := make(chan int); close(c); close(c) })
		try("send closed", func() { c := make(chan int); close(c); c <- 1 })
		try("make slice", func() { _ = make([]int, minus) })
		try("make cap", func() { _ = make([]int, 0, minus) })
		try("make chan", func() { _ = make(chan int, minus) })
		try("shift", func() { n = 1 << minus })
		try("own", func() { panic(fmt.Sprint("text")) })
		try("again", func() {
			defer func() { panic(recover()) }()
			n = 1 / n
		})
	}
}
