// Go accepts this.
package main

func main() {
	var c complex128
	println(real(c))
}
