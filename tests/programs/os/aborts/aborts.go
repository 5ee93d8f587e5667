package main

// void end(int how);
import "C"

import "fmt"

const how = 0 // replaced

func main() {
	fmt.Println("printed before")
	C.end(how)
	fmt.Println("not reached")
}
