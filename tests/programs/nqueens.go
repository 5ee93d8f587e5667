// All placements of n queens on a board of n by n, by backtracking.
package main

import "fmt"

const size = 10 // stress: 5

type board struct {
	n         int
	queens    []int
	columns   []bool
	rising    []bool
	falling   []bool
	solutions int
	first     string
}

func newBoard(n int) *board {
	return &board{
		n:       n,
		queens:  make([]int, 0, n),
		columns: make([]bool, n),
		rising:  make([]bool, 2*n),
		falling: make([]bool, 2*n),
	}
}

func (b *board) String() string {
	s := ""
	for _, queen := range b.queens {
		row := make([]byte, b.n)
		for i := range row {
			row[i] = '.'
		}
		row[queen] = 'Q'
		s += string(row) + "\n"
	}
	return s
}

func (b *board) solve() {
	row := len(b.queens)
	if row == b.n {
		if b.solutions == 0 {
			b.first = b.String()
		}
		b.solutions++
		return
	}
	for column := 0; column < b.n; column++ {
		up, down := row+column, row-column+b.n
		if b.columns[column] || b.rising[up] || b.falling[down] {
			continue
		}
		b.columns[column], b.rising[up], b.falling[down] = true, true, true
		b.queens = append(b.queens, column)
		b.solve()
		b.queens = b.queens[:row]
		b.columns[column], b.rising[up], b.falling[down] = false, false, false
	}
}

func main() {
	for n := 1; n <= size; n++ {
		b := newBoard(n)
		b.solve()
		fmt.Printf("%2d queens: %d solutions\n", n, b.solutions)
		if n == size {
			fmt.Print(b.first)
		}
	}
}
