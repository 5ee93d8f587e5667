// Go accepts this.
package main

import "fmt"

func main() {
	fmt.Println(len("\xff\xfe"))
}
