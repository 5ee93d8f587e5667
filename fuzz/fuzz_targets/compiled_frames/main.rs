//! Stacks of compiled frames against a simple model: the programs of `stack/tests/random_frames`,
//! made from the fuzzer's input.

#![cfg_attr(fuzzing, no_main)]

#[path = "../../../stack/tests/random_frames/code.rs"]
mod code;
#[path = "../../../stack/tests/random_frames/model.rs"]
mod model;
#[path = "../../../stack/tests/random_frames/run.rs"]
mod run;

/// Frames that may be alive at once.
const DEEPEST: usize = 600;

/// Runs one input, whose first byte chooses how the runtime behaves.
fn run(input: &[u8]) {
    if let Some((choice, input)) = input.split_first() {
        run::Setting::new(*choice).run(input, DEEPEST);
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    stackmark_fuzz::signals_on_alternate_stack();
    run(input);
});

/// Without coverage: runs the files that are named.
#[cfg(not(fuzzing))]
fn main() {
    stackmark_fuzz::run_files(run);
}
