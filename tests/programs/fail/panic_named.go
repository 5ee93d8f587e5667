package main

type code uint16

func main() {
	panic(code(404))
}
