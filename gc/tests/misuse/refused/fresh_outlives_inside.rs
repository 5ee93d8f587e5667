//! A fresh object does not leave the closure in which the thread counts as running.
use stackmark::mark_sweep::{Allocator, DescriptorId};
use stackmark::stack::Machine;

fn main() {}

fn keep(machine: &Machine, allocator: &Allocator, descriptor: DescriptorId) {
    let fresh = machine.inside(|inside| allocator.allocate(&inside, descriptor, 16).unwrap());
    println!("{:?}", fresh.address());
}
