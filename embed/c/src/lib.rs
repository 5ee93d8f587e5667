//! The C interface: `include/stackmark.h` says what each function does.
//!
//! A function here checks and converts what C gives it and calls the Rust library. Functions are
//! safe to write in Rust because the header's contract is with C: nothing calls them from Rust.
//! Where the header says "owned", a pointer is that of a `Box`, or of an `Arc` for goroutines.

mod abi;
mod caller;
mod code;
mod collector;
mod exception;
mod heap;
mod heap_table;
mod host;
#[cfg(test)]
mod layout;
mod machine;
mod numbers;
mod object;
mod roots;
mod runtime;
mod scheduler;
mod statistics;
