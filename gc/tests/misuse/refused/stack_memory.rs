//! Stacks come from the runtime alone.
use stackmark::stack::Runtime;

fn main() {}

fn take(runtime: &Runtime) {
    let memory = runtime.stacks().take(4096);
    runtime.stacks().give(memory.unwrap());
}
