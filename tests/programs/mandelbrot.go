// The Mandelbrot set in characters, with a checksum of the orbits.
package main

import "fmt"

const size = 64 // stress: 10

const limit = size/2 + 18

const shades = " .:-=+*#%@"

// escape returns after how many steps the orbit of c leaves the circle of
// radius 2, and where it was then.
func escape(cr, ci float64) (steps int, zr, zi float64) {
	for steps < limit && zr*zr+zi*zi <= 4 {
		zr, zi = zr*zr-zi*zi+cr, 2*zr*zi+ci
		steps++
	}
	return
}

func main() {
	total := 0
	norm := 0.0
	for y := 0; y < size/2; y++ {
		line := make([]byte, size)
		ci := (float64(y)+0.5)*4/size - 1
		for x := range line {
			cr := (float64(x)+0.5)*3/size - 2.25
			steps, zr, zi := escape(cr, ci)
			total += steps
			if steps < limit {
				norm += zr*zr + zi*zi
			}
			line[x] = shades[steps*(len(shades)-1)/limit]
		}
		fmt.Println(string(line))
	}
	fmt.Printf("steps %d, norm %.6f\n", total, norm)
}
