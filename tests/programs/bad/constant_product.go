// Go refuses this.
package main

const big = 1 << 511

func main() { println(big*big > 0) }
