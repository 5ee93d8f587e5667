package main

func main() {
	x := 3.0
	panic(x / 2)
}
