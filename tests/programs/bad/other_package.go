// Go refuses this as a program.
package other

func main() {}
