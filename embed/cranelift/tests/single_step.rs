//! Walks are right at every single instruction of Cranelift's code, too: what
//! `stack/tests/single_step.rs` does.

// The same functions, by Cranelift.
extern crate jit as compiler;

#[path = "../../../stack/tests/single_step.rs"]
mod as_in_stack;
