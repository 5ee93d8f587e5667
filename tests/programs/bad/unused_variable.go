// Go refuses this.
package main

func main() {
	x := 1
}
