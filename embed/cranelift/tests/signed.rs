//! Cranelift's code that signs its return addresses: what `stack/tests/signed.rs` does.

// The same functions, by Cranelift.
extern crate jit as compiler;

#[path = "../../../stack/tests/signed.rs"]
mod as_in_stack;
