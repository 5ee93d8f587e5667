// Go accepts this.
package main

type table struct {
	names map[int]string
}

func main() {
	var t table
	println(t.names == nil)
}
