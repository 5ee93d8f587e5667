// Package time as far as minigo's runtime implements it: the monotonic clock.
package time

type Duration int64

type Time struct{ ns int64 }

func Now() Time
func Since(t Time) Duration
