//! A stopped world cannot be forgotten: it lasts as long as a closure.
use stackmark::stack::Runtime;

fn main() {}

fn forget(runtime: &Runtime) {
    std::mem::forget(runtime.stop_world());
}
