//! `.llvm_stackmaps` sections of any content: what is read without error can be written down and is
//! found again.

#![cfg_attr(fuzzing, no_main)]

use stackmark_unwind::stack_map::{StackMap, StackMaps, llvm};

fn run(input: &[u8]) {
    let Ok(records) = llvm::records(input) else { return };
    let maps: Vec<StackMap> =
        records.iter().filter_map(|record| record.statepoint().ok()).collect();
    let Ok(table) = StackMaps::new(maps.iter().cloned()) else { return };
    for map in &maps {
        let found = table.get(map.return_address).expect("it was put in");
        assert_eq!(found.roots().collect::<Vec<_>>(), map.roots);
        assert_eq!(found.cfa_offset(), map.cfa_offset);
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| run(input));

#[cfg(not(fuzzing))]
fn main() {
    stackmark_fuzz::run_files(run);
}
