//! Goroutine stacks.
