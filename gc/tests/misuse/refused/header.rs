//! The words that assembly and managed code address are out of reach.
use stackmark::stack::Goroutine;

fn main() {}

fn jump(goroutine: &Goroutine) {
    goroutine.header().sched.pc.store(1, std::sync::atomic::Ordering::Relaxed);
}

fn enter(goroutine: &Goroutine) {
    goroutine.header.entry.store(1, std::sync::atomic::Ordering::Relaxed);
}
