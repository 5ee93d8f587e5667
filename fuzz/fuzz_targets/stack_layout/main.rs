//! Stacks of invented frames that are scanned, hit, moved, grown and left, against a model of them.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
use stackmark_stack::layout_model::run;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    stackmark_fuzz::signals_on_alternate_stack();
    run(input);
});

/// The model is part of the library only under the flags that fuzzing sets.
#[cfg(not(fuzzing))]
fn main() {
    eprintln!("build with --cfg fuzzing, as fuzz/run does");
    std::process::exit(2);
}
