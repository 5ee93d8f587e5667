//! Files in Microsoft's format, of any content: an image that is read yields rules or typed errors,
//! and each rule can be evaluated.

#![cfg_attr(fuzzing, no_main)]

use stackmark_unwind::{Image, MemorySnapshot, RegisterSet};

/// Looks up what there is, and compiles it.
fn run(input: &[u8]) {
    let Ok(image) = Image::from_pe("fuzzed", input, 0x10_0000) else { return };
    let stack = MemorySnapshot { start: 0x1000, words: vec![0x1000; 16] };
    for range in image.code().to_vec() {
        let step = (range.len() / 64).max(1);
        for pc in range.step_by(step) {
            if let Ok(Some(rule)) = image.rule(pc) {
                let _ = rule.evaluate(&RegisterSet::new(pc, 0x1000, 0x1008), &stack);
                let _ = rule.to_string();
            }
        }
    }
    let _ = image.functions();
    let _ = image.compile();
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| run(input));

#[cfg(not(fuzzing))]
fn main() {
    stackmark_fuzz::run_files(run);
}
