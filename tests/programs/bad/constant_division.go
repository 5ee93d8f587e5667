// Go refuses this.
package main

func main() {
	n := 1
	println(n / 0)
}
