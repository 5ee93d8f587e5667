// Go accepts this.
package main

func main() {
	r := recover()
	println(r == nil)
}
