//! Traces of stacks that are made up, with all registers.

mod support;
#[path = "support/walk.rs"]
mod walk;

use stackmark_unwind::{
    Code, FramePointers, Memory, MemorySnapshot, RegisterSet, RuleCache, UndescribedFrames,
    Unwinder, WalkError,
};
use support::arch::{self, FP, PC, SP, W, WORD};
use walk::walk;

/// Registers that calls keep, as many as are saved here at one time.
const KEPT: usize = if arch::CALLEE_SAVED.len() < 6 { arch::CALLEE_SAVED.len() } else { 6 };

#[test]
fn a_hook_that_leads_nowhere_or_in_circles_ends_a_walk() {
    let code = Code::new();
    let at = |word: usize| 0x7000 + word * WORD;
    let memory = MemorySnapshot { start: at(0), words: vec![at(0), 0x1234, 0, 0, at(1), 0] };
    let walked = |fp: usize, hook: &dyn UndescribedFrames| {
        walk(&code, &memory, RegisterSet::new(0x1000, 0x7000, fp), Some(hook))
    };
    // A record that is its own caller's: below that frame's stack pointer.
    let (frames, end) = walked(0x7000, &FramePointers);
    assert_eq!((frames.len(), end), (1, Err(WalkError::NoRule { pc: 0x1234 })));
    // The oldest frame.
    let (frames, end) = walked(at(4), &FramePointers);
    assert_eq!((frames.len(), end), (1, Ok(())));
    for fp in [0, at(0) - WORD, at(0) + WORD / 2, at(5), 0x8000, usize::MAX - (WORD - 1)] {
        let (frames, end) = walked(fp, &FramePointers);
        assert_eq!((frames.len(), end), (0, Err(WalkError::NoRule { pc: 0x1000 })), "{fp:#x}");
    }
    let stands = |frame: &RegisterSet, _: &dyn Memory| Some(*frame);
    let (frames, end) = walked(0, &stands);
    assert!(matches!(end, Err(WalkError::Circles { .. })), "{} frames: {end:?}", frames.len());
    let unknown = |_: &RegisterSet, _: &dyn Memory| Some(RegisterSet::unknown());
    assert_eq!(walked(0, &unknown).1, Err(WalkError::NoRule { pc: 0x1000 }));
    // What the hook does not say is not known.
    let partly = |_: &RegisterSet, _: &dyn Memory| {
        let mut caller = RegisterSet::unknown();
        caller.set(PC, 0x2000);
        caller.set(SP, 0x7010);
        Some(caller)
    };
    let snapshot = code.snapshot();
    let mut cache = RuleCache::new();
    let registers = RegisterSet::new(0x1000, 0x7000, 0x7000);
    let mut walk =
        Unwinder::new(&snapshot, &mut cache, &memory, (), registers).undescribed(&partly);
    assert!(walk.next_frame().unwrap().unwrap().undescribed);
    assert_eq!((walk.pc(), walk.sp(), walk.register(FP)), (0x2000, 0x7010, None));
}

/// A trace finds the same registers and frames one by one as a thousand at once, also in runs of
/// one function.
#[test]
fn registers_are_found_alike_step_by_step_and_at_once() {
    use gimli::write::CallFrameInstruction as Cfi;
    const START: usize = 0x40_0000;
    const STACK: usize = 0x7000_0000;
    let registers: [_; KEPT] = std::array::from_fn(|i| arch::CALLEE_SAVED[i]);
    const LAST: usize = KEPT - 1;
    // Function i saves the registers of its bits. Bit 64 stands for a frame pointer.
    let functions = (0..=64_usize).map(|i| {
        let mut instructions = vec![(1, Cfi::CfaOffset(2 * W))];
        if i == 64 {
            instructions.extend([(1, Cfi::Offset(FP, -2 * W)), (4, Cfi::CfaRegister(FP))]);
        } else {
            instructions.push((1, Cfi::CfaOffset(8 * W)));
            for (bit, register) in
                registers.into_iter().enumerate().filter(|(bit, _)| i >> bit & 1 != 0)
            {
                instructions.push((1, Cfi::Offset(register, -(2 + bit as i32) * W)));
            }
        }
        (START + 0x100 * i, 0x100, instructions)
    });
    let code = Code::new();
    let region = stackmark_unwind::Region {
        name: "many".into(),
        start: START,
        len: 0x100 * 65,
        eh_frame: support::eh_frame(functions),
        ..Default::default()
    };
    code.register(region).unwrap();

    // Frames of eight words. Those with a frame pointer save the next such frame's in their sixth
    // word.
    let mut state = 1_u64;
    let mut function = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        match state >> 60 {
            0..5 => 64,
            _ => ((state >> 40) as usize % 64) & !(1 << LAST | 1),
        }
    };
    const FRAMES: usize = 1500;
    let mut of_frames: Vec<usize> = (0..FRAMES).map(|_| function()).collect();
    // A run longer than the frames that are searched together, and a register saved long before.
    of_frames[600..1100].fill(64);
    of_frames[3] = 1 << LAST | 1 << 2;
    let mut words = vec![0; 8 * (FRAMES + 1)];
    let at = |frame: usize, word: usize| 8 * frame + word;
    for frame in 0..FRAMES {
        let older = (frame + 1..FRAMES).find(|older| of_frames[*older] == 64).unwrap_or(FRAMES);
        words[at(frame, 6)] = STACK + WORD * at(older, 6);
        words[at(frame, 7)] =
            START + 0x100 * of_frames.get(frame + 1).copied().unwrap_or(64) + 0x80;
    }
    let first = of_frames.iter().position(|function| *function == 64).unwrap();
    let memory = MemorySnapshot { start: STACK, words };
    let context = || {
        let mut context = RegisterSet::new(
            START + 0x100 * of_frames[0] + 0x80,
            STACK,
            STACK + WORD * at(first, 6),
        );
        registers[1..].iter().for_each(|register| context.set(*register, 1));
        context
    };
    let snapshot = code.snapshot();
    for frames in [1, 2, 5, 255, 256, 257, 258, 700, 1100, 1400] {
        let (mut one_cache, mut all_cache) = (RuleCache::new(), RuleCache::new());
        let mut one = Unwinder::new(&snapshot, &mut one_cache, &memory, (), context());
        for frame in 0..frames {
            assert_eq!(
                one.next_frame().unwrap().unwrap().cfa,
                STACK + WORD * at(frame + 1, 0),
                "frame {frame}"
            );
        }
        // Twice: pcs that are not in the cache yet are stepped over one by one.
        for _ in 0..2 {
            let mut all = Unwinder::new(&snapshot, &mut all_cache, &memory, (), context());
            let mut seen = 0;
            let walked = all.for_each(|_| {
                seen += 1;
                if seen == frames {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            });
            assert_eq!(walked, Ok(Some(())));
            for register in registers {
                assert_eq!(
                    all.register_slot(register),
                    one.register_slot(register),
                    "{frames} frames, {register:?}"
                );
            }
            assert_eq!(all.register(FP), one.register(FP));
        }
        if frames > 5 {
            assert_eq!(
                one.register_slot(registers[LAST]),
                Some(STACK + WORD * (at(4, 0) - 2 - LAST)),
                "saved long ago"
            );
        }
    }
}

/// Walks over random frames of every kind of rule, compared with one that takes each register from
/// the rules' own evaluation and forgets what they do not say.
mod registers {
    use super::*;
    use gimli::Register;
    use gimli::write::CallFrameInstruction as Cfi;
    use proptest::prelude::*;
    use stackmark_unwind::{Recovered, Region, Snapshot};

    const CODE: usize = 0x40_0000;
    const STACK: usize = 0x7000_0000;
    const WORDS: usize = 256;
    use arch::{CALLEE_SAVED, RA, REGISTERS, SCRATCH};
    /// Those with numbers below are general registers.
    const GENERAL: usize = if REGISTERS < 16 { REGISTERS - 1 } else { 16 };
    /// Two of those that calls keep.
    const A: Register = CALLEE_SAVED[1];
    const B: Register = CALLEE_SAVED[2];

    /// The functions, and which of them are frames of signals.
    fn functions() -> Vec<(bool, Vec<(u32, Cfi)>)> {
        let saves = |registers: &[Register]| -> Vec<(u32, Cfi)> {
            let at = |(i, register): (usize, &Register)| {
                (0, Cfi::Offset(*register, -(2 + i as i32) * W))
            };
            std::iter::once((0, Cfi::CfaOffset(8 * W)))
                .chain(registers.iter().enumerate().map(at))
                .collect()
        };
        let with = |mut all: Vec<(u32, Cfi)>, more: &[Cfi]| {
            all.extend(more.iter().map(|more| (0, more.clone())));
            all
        };
        let signal: Vec<(u32, Cfi)> = (0..GENERAL as u16)
            .filter(|number| Register(*number) != SP)
            .map(|number| (0, Cfi::Offset(Register(number), -(2 + i32::from(number)) * W)))
            .collect();
        vec![
            (false, with(saves(&[]), &[Cfi::SameValue(FP)])),
            (false, saves(&[FP])),
            (false, saves(&[B, A])),
            (false, saves(&CALLEE_SAVED[..KEPT])),
            (false, with(saves(&[FP]), &[Cfi::Cfa(FP, 2 * W)])),
            (false, with(saves(&[FP]), &[Cfi::Cfa(FP, 5 * W)])),
            (false, with(saves(&[B]), &[Cfi::Cfa(B, 2 * W)])),
            (false, with(saves(&[]), &[Cfi::Cfa(A, 3 * W)])),
            (false, with(saves(&[]), &[Cfi::Cfa(SCRATCH, 3 * W)])),
            (false, with(saves(&[]), &[Cfi::Undefined(FP)])),
            (false, with(saves(&[]), &[Cfi::Undefined(B), Cfi::Undefined(FP)])),
            (false, with(saves(&[]), &[Cfi::Register(FP, B)])),
            (false, with(saves(&[]), &[Cfi::ValOffset(B, -4 * W)])),
            (true, with(signal, &[Cfi::CfaOffset(24 * W)])),
        ]
    }

    fn code() -> Code {
        let mut table = gimli::write::FrameTable::default();
        let plain = table.add_cie(support::cie());
        let mut cie = support::cie();
        cie.signal_trampoline = true;
        let signal = table.add_cie(cie);
        let functions = functions();
        let len = functions.len() * 0x100;
        for (i, (is_signal, instructions)) in functions.into_iter().enumerate() {
            let address = gimli::write::Address::Constant((CODE + 0x100 * i) as u64);
            let mut fde = gimli::write::FrameDescriptionEntry::new(address, 0x100);
            for (offset, instruction) in instructions {
                fde.add_instruction(offset, instruction);
            }
            table.add_fde(if is_signal { signal } else { plain }, fde);
        }
        let mut section = gimli::write::EhFrame(gimli::write::EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut section).unwrap();
        let code = Code::new();
        let eh_frame = section.0.into_vec();
        code.register(Region { start: CODE, len, eh_frame, ..Region::default() }).unwrap();
        code
    }

    fn word() -> impl Strategy<Value = usize> {
        let count = functions().len();
        prop_oneof![
            5 => (0..count).prop_map(|i| CODE + 0x100 * i + 0x80),
            4 => (0..WORDS).prop_map(|word| STACK + WORD * word),
            1 => any::<usize>(),
        ]
    }

    /// A frame of the reference: its exactness, and what is known of its registers.
    struct Known {
        exact: bool,
        registers: [Option<usize>; REGISTERS],
    }

    impl Known {
        fn get(&self, register: Register) -> Option<usize> {
            self.registers[usize::from(register.0)]
        }

        /// The caller; `None` if the rules do not say who it is.
        fn caller(&self, snapshot: &Snapshot<'_>, memory: &MemorySnapshot) -> Option<Known> {
            let at = self.get(PC)?.wrapping_sub(usize::from(!self.exact));
            let rule = snapshot.rule(at).unwrap()?;
            let mut set = RegisterSet::unknown();
            for (number, value) in self.registers.iter().enumerate() {
                value.iter().for_each(|value| set.set(Register(number as u16), *value));
            }
            let recovery = rule.evaluate(&set, memory).ok()?;
            let mut registers = [None; REGISTERS];
            for (number, value) in registers.iter_mut().enumerate() {
                let register = Register(number as u16);
                *value = match recovery.register(register) {
                    Recovered::Unknown => None,
                    Recovered::Same => self.get(register),
                    Recovered::Value(value) => Some(value),
                    Recovered::At(address) => memory.read(address),
                };
            }
            // A signal frame may have both.
            if PC != RA && recovery.register(PC) == Recovered::Unknown {
                let return_address = registers[usize::from(RA.0)].map(arch::return_address);
                registers[usize::from(RA.0)] = return_address;
                registers[usize::from(PC.0)] = return_address;
            }
            Some(Known { exact: recovery.signal_frame, registers })
        }
    }

    fn refused(error: WalkError) -> bool {
        let source = |register| stackmark_unwind::ExpressionError::UnknownRegister(register);
        matches!(error, WalkError::Expression { source: found, .. }
            if (0..REGISTERS as u16).any(|number| found == source(Register(number))))
    }

    #[test]
    fn a_frame_that_leaves_the_frame_pointer_undefined_leaves_it_unknown() {
        let code = code();
        let snapshot = code.snapshot();
        let undefined = CODE + 0x100 * 9 + 0x80;
        // Its caller has its CFA by the frame pointer.
        let mut words = vec![1; 32];
        (words[7], words[15]) = (CODE + 0x80, CODE + 0x100 * 4 + 0x80);
        let memory = MemorySnapshot { start: STACK, words };
        let set = RegisterSet::new(undefined, STACK, STACK + 10 * WORD);
        for lean in [false, true] {
            let mut cache = RuleCache::new();
            let steps = if lean {
                let mut walk = Unwinder::lean(&snapshot, &mut cache, &memory, (), set);
                [0; 3].map(|_| (walk.next_frame().map(|_| ()), walk.register(FP)))
            } else {
                let mut walk = Unwinder::new(&snapshot, &mut cache, &memory, (), set);
                [0; 3].map(|_| (walk.next_frame().map(|_| ()), walk.register(FP)))
            };
            assert_eq!(steps[..2], [(Ok(()), None), (Ok(()), None)], "lean: {lean}");
            assert!(refused(steps[2].0.unwrap_err()), "lean: {lean}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Of a stack that is deeper than a walk leaves checkpoints for at first distances.
        #[test]
        fn a_walk_that_is_asked_seldom_knows_what_one_knows_that_is_asked_always(
            rare in prop::collection::btree_map(0..20_000_usize, 0..4_usize, 0..8),
            asked in prop::collection::btree_set(0..20_000_usize, 1..6),
            in_row in 1..40_usize,
        ) {
            const FRAMES: usize = 20_000;
            let code = code();
            let snapshot = code.snapshot();
            // Frames of eight words. Most save nothing, or the frame pointer.
            let mut words: Vec<usize> = (0..8 * (FRAMES + 1)).map(|i| i * WORD + 1).collect();
            let function = |frame: usize| {
                let usual = frame / in_row % 2;
                CODE + 0x100 * rare.get(&frame).copied().unwrap_or(usual) + 0x80
            };
            for frame in 0..FRAMES {
                words[8 * frame + 7] = function(frame + 1);
            }
            let memory = MemorySnapshot { start: STACK, words };
            let set = RegisterSet::new(function(0), STACK, STACK);
            // Where the rule of each of the functions says that registers are saved, from the CFA.
            let saved = [0, 1, 2, 3].map(|i| {
                let rule = snapshot.rule(CODE + 0x100 * i + 0x80).unwrap().unwrap();
                let recovery = rule.evaluate(&RegisterSet::new(0, 0, 0), &memory).unwrap();
                CALLEE_SAVED.map(|register| match recovery.register(register) {
                    Recovered::At(at) => Some(recovery.cfa.wrapping_sub(at)),
                    _ => None,
                })
            });
            let (mut one, mut other) = (RuleCache::new(), RuleCache::new());
            for _ in 0..2 {
                let mut always = Unwinder::new(&snapshot, &mut one, &memory, (), set);
                let mut seldom = Unwinder::new(&snapshot, &mut other, &memory, (), set);
                let mut passed = 0;
                for &frames in &asked {
                    while passed <= frames {
                        always.next_frame().unwrap();
                        always.register_slot(A);
                        passed += 1;
                    }
                    let walked = seldom.for_each(|frame| {
                        match frame.sp == STACK + 8 * WORD * frames {
                            true => std::ops::ControlFlow::Break(()),
                            false => std::ops::ControlFlow::Continue(()),
                        }
                    });
                    prop_assert_eq!(walked, Ok(Some(())));
                    for register in CALLEE_SAVED {
                        let slot = always.register_slot(register);
                        prop_assert_eq!(seldom.register_slot(register), slot);
                        prop_assert_eq!(seldom.register(register), always.register(register));
                        // The frame that has saved it last.
                        let i = CALLEE_SAVED.iter().position(|saved| *saved == register).unwrap();
                        let expected = (0..=frames).rev().find_map(|frame| {
                            let below = saved[(function(frame) - CODE) / 0x100][i]?;
                            Some(STACK + 8 * WORD * (frame + 1) - below)
                        });
                        prop_assert_eq!(slot, expected);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn a_walk_knows_of_registers_what_the_rules_say_and_nothing_else(
            words in prop::collection::vec(word(), WORDS),
            first in word(),
            values in prop::array::uniform16(prop::option::weighted(0.8, word())),
            sp in 0..WORDS / 4,
        ) {
            let code = code();
            let snapshot = code.snapshot();
            let memory = MemorySnapshot { start: STACK, words };
            let mut registers = [None; REGISTERS];
            registers[..GENERAL].copy_from_slice(&values[..GENERAL]);
            for (register, value) in CALLEE_SAVED.iter().zip(values) {
                registers[usize::from(register.0)] = value;
            }
            registers[usize::from(SP.0)] = Some(STACK + WORD * sp);
            registers[usize::from(PC.0)] = Some(arch::return_address(first));
            let mut set = RegisterSet::unknown();
            for (number, value) in registers.iter().enumerate() {
                value.iter().for_each(|value| set.set(Register(number as u16), *value));
            }
            let (mut full_cache, mut lean_cache) = (RuleCache::new(), RuleCache::new());
            // Again, with the rules in the caches.
            for round in 0..2 {
                let mut full = Unwinder::new(&snapshot, &mut full_cache, &memory, (), set);
                let mut lean = Unwinder::lean(&snapshot, &mut lean_cache, &memory, (), set);
                let mut lean_goes = true;
                let mut known = Known { exact: true, registers };
                for _ in 0..40 {
                    let here = (known.get(PC), known.get(SP));
                    let caller = known.caller(&snapshot, &memory);
                    let stepped = full.next_frame();
                    if lean_goes {
                        let by_lean = lean.next_frame();
                        lean_goes = by_lean.is_ok();
                        match (stepped, by_lean) {
                            (full, lean) if full == lean => {}
                            (_, Err(error)) => prop_assert!(refused(error), "{error:?}"),
                            _ => prop_assert!(false, "{stepped:x?} but lean {by_lean:x?}"),
                        }
                    }
                    // A walk may refuse more: a stack that goes down, a word that cannot be read.
                    let Ok(Some(frame)) = stepped else { break };
                    prop_assert_eq!((Some(frame.pc), Some(frame.sp)), here);
                    prop_assert!(caller.is_some(), "round {} has a caller", round);
                    known = caller.unwrap();
                    for number in 0..REGISTERS as u16 {
                        let register = Register(number);
                        let expected = known.get(register);
                        let found = full.register(register);
                        if CALLEE_SAVED.contains(&register) {
                            prop_assert_eq!(found, expected, "{:?} of {:x?}", register, frame);
                        } else {
                            prop_assert!(found.is_none() || found == expected);
                        }
                        let found = lean.register(register);
                        prop_assert!(!lean_goes || found.is_none() || found == expected);
                    }
                }
            }
        }
    }
}
