// Package runtime as far as minigo's runtime implements it.
package runtime

func GC()
func Gosched()
func NumGoroutine() int
func Goexit()
