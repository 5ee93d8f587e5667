//! A deep recursion of Cranelift's code: what `stack/tests/deep_stack.rs` does.

// The same functions, by Cranelift.
extern crate jit as compiler;

#[path = "../../../stack/tests/deep_stack.rs"]
mod as_in_stack;
