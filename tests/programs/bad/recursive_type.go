// Go refuses this.
package main

type node struct {
	value int
	next  node
}

func main() {
	var n node
	println(n.value)
}
