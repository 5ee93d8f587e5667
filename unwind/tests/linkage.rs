//! Traces that begin in stubs of the procedure linkage table, which no CFI describes.
// Elsewhere linkers describe them.
#![cfg(target_arch = "aarch64")]

mod support;

use std::collections::HashMap;

use gimli::AArch64;
use stackmark_unwind::{Code, Memory, RegisterSet, RuleCache, Unwinder, WalkError};
use support::arch::FP;
use support::region;

const STACK: usize = 0x7000_0000;
const STUBS: usize = 0x20_0000;
/// A caller with a rule, and where the stub's function returns to in it.
const CALLER: usize = 0x10_0000;
const RETURNS_TO: usize = CALLER + 0x20;

const LANDS: u32 = 0xd503_245f;
const SAVES: u32 = 0xa9bf_7bf0;
const PAGE: u32 = 0xb000_0010;
const LOAD: u32 = 0xf947_fe11;
const SUM: u32 = 0x913f_e210;
const CHECKS: u32 = 0xd503_219f;
const JUMPS: u32 = 0xd61f_0220;
const NOP: u32 = 0xd503_201f;

#[derive(Default)]
struct Words(HashMap<usize, usize>);

impl Words {
    fn put(&mut self, at: usize, instruction: u32) {
        let word = self.0.entry(at & !7).or_default();
        *word |= (instruction as usize) << (at % 8 * 8);
    }
}

impl Memory for Words {
    fn read(&self, address: usize) -> Option<usize> {
        self.0.get(&address).copied()
    }
}

/// The caller's pc and stack pointer, from a stub with this stack pointer.
fn caller(code: &Code, words: &Words, pc: usize, sp: usize) -> Result<(usize, usize), WalkError> {
    let mut registers = RegisterSet::new(pc, sp, 0x1234);
    registers.set(AArch64::X30, RETURNS_TO);
    let (snapshot, mut cache) = (code.snapshot(), RuleCache::new());
    let mut trace = Unwinder::new(&snapshot, &mut cache, words, (), registers);
    let frame = trace.next_frame()?.expect("not the end");
    assert_eq!((trace.pc(), trace.sp()), (frame.return_address, frame.cfa));
    assert_eq!(trace.register(FP), Some(0x1234), "a stub keeps it");
    Ok((frame.return_address, frame.cfa))
}

#[test]
fn traces_from_each_instruction_of_a_stub_find_its_caller() {
    let code = Code::new();
    code.register(region(CALLER, &[&[(0x20, 32, &[])]])).expect("a correct region");
    // How the linkers write them. `true`: behind this instruction the return address is saved.
    let first = |lands: &[u32]| [lands, &[SAVES, PAGE, LOAD, SUM, JUMPS, NOP, NOP, NOP]].concat();
    let tables = [
        first(&[]),
        first(&[LANDS]),
        vec![PAGE, LOAD, SUM, JUMPS],
        vec![LANDS, PAGE, LOAD, SUM, JUMPS, NOP],
        vec![PAGE, LOAD, SUM, CHECKS, JUMPS, NOP],
        vec![LANDS, PAGE, LOAD, SUM, CHECKS, JUMPS],
    ];
    let mut words = Words::default();
    let (mut at, mut looked) = (STUBS, 0);
    let mut places = Vec::new();
    for stub in &tables {
        let mut saved = false;
        for instruction in stub {
            words.put(at, *instruction);
            places.push((at, *instruction, saved));
            saved |= *instruction == SAVES;
            at += 4;
        }
    }
    // What the stub saves: x16, and above it the return address. A leaf's word there is another.
    words.0.insert(STACK, 0xdead);
    words.0.insert(STACK + 8, RETURNS_TO);
    for (pc, instruction, saved) in places {
        if instruction == NOP {
            let error = caller(&code, &words, pc, STACK).expect_err("no stub");
            assert_eq!(error, WalkError::NoRule { pc });
            continue;
        }
        let cfa = if saved { STACK + 16 } else { STACK };
        assert_eq!(caller(&code, &words, pc, STACK), Ok((RETURNS_TO, cfa)), "at {pc:#x}");
        looked += 1;
    }
    assert_eq!(looked, 5 + 6 + 4 + 5 + 5 + 6);
}

#[test]
fn code_that_is_like_a_stub_is_none() {
    let code = Code::new();
    code.register(region(CALLER, &[&[(0x20, 32, &[])]])).expect("a correct region");
    let whole = [PAGE, LOAD, SUM, JUMPS];
    // The last one is not broken.
    for broken in 0..=whole.len() {
        let mut words = Words::default();
        words.put(STUBS + 16, NOP);
        for (i, instruction) in whole.into_iter().enumerate() {
            words.put(STUBS + 4 * i, if i == broken { instruction ^ 1 } else { instruction });
        }
        for pc in (STUBS..STUBS + 16).step_by(4) {
            let found = caller(&code, &words, pc, STACK);
            let no_rule = Err(WalkError::NoRule { pc });
            assert_eq!(
                found,
                if broken < 4 { no_rule } else { Ok((RETURNS_TO, STACK)) },
                "{broken}"
            );
        }
    }
}
