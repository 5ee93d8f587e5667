// Go refuses this.
package main

import "fmt"

func main() {
}
