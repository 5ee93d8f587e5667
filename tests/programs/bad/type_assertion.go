// Go accepts this.
package main

func main() {
	var x interface{} = 1
	n, ok := x.(int)
	println(n, ok)
}
