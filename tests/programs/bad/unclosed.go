// Go refuses this.
package main

func main() {
	println("text"
}
