// Package runtime as far as minigo's runtime implements it.
package runtime

// Error is implemented by the runtime's own errors.
type Error interface {
	error
	RuntimeError()
}

func GC()
func Gosched()
func NumGoroutine() int
func Goexit()
