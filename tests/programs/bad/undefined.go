// Go refuses this.
package main

func main() {
	missing(1)
}
