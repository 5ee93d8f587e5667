//! A machine stays on its thread.
use stackmark::stack::Machine;

fn main() {}

fn send<T: Send>(_: T) {}

fn machine(machine: Machine) {
    send(machine);
}
