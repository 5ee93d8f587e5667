//! Stacks of invented frames that are scanned, hit, moved, grown and left, against a model of them.

#![cfg_attr(fuzzing, no_main)]

use stackmark_stack::layout_model::run;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| run(input));

/// Without coverage: runs the files that are named.
#[cfg(not(fuzzing))]
fn main() {
    for file in std::env::args().skip(1) {
        run(&std::fs::read(&file).expect("a file with an input"));
    }
}
