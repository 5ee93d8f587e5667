//! Traces of this process, compared with the system's unwinder frame by frame.
// It is about the CFI of the process. tests/windows.rs has the like of it.
#![cfg(not(windows))]

mod support;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::cell::RefCell;
use std::ffi::c_void;
use std::hint::black_box;

use stackmark_unwind::{
    CallFrame, Code, LiveMemory, MemorySnapshot, RegisterSet, RuleCache, Unwinder, WalkError,
};
use support::arch::{self, FP, PC, SP, W, WORD};

/// Registers that calls keep, as many as are saved here at one time.
const KEPT: usize = if arch::CALLEE_SAVED.len() < 6 { arch::CALLEE_SAVED.len() } else { 6 };

fn frames<const N: usize>(
    code: &Code,
    cache: &mut RuleCache,
    memory: [LiveMemory; N],
    context: RegisterSet,
) -> Result<Vec<CallFrame>, WalkError> {
    let snapshot = code.snapshot();
    let mut trace = Unwinder::new(&snapshot, cache, memory, (), context);
    let mut frames = Vec::new();
    while let Some(frame) = trace.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

/// Recursion through frames of several sizes, some of which save registers, then `leaf`.
#[inline(never)]
fn recurse(depth: usize, leaf: &mut dyn FnMut()) -> usize {
    let (a, b, c) = (black_box(depth * 3), black_box(depth ^ 5), black_box(depth + 9));
    let below = match depth {
        0 => {
            leaf();
            1
        }
        _ if depth.is_multiple_of(2) => recurse(depth - 1, leaf),
        _ => through_a_large_frame(depth - 1, leaf),
    };
    black_box(below) + a + b + c
}

#[inline(never)]
fn through_a_large_frame(depth: usize, leaf: &mut dyn FnMut()) -> usize {
    let mut large = [0_u64; 700];
    black_box(&mut large);
    recurse(depth, leaf)
}

#[test]
fn a_trace_sees_the_frames_that_the_system_sees() {
    let code = Code::new();
    assert!(code.refresh_images());
    assert!(!code.refresh_images(), "nothing has been loaded meanwhile");
    let mut leaf = || {
        let mut cache = RuleCache::new();
        for _ in 0..3 {
            let stack = this_thread::stack();
            let context = RegisterSet::capture();
            let expected = this_thread::system_frames();
            let traced = frames(&code, &mut cache, [stack], context).unwrap();
            // The leaf's own pc differs, since the two walks begin at different calls.
            let pcs: Vec<usize> = traced[1..].iter().map(|frame| frame.pc).collect();
            let stacks: Vec<usize> = traced[1..].iter().map(|frame| frame.sp).collect();
            assert!(traced.len() > 60);
            assert_eq!(
                pcs,
                expected[1..]
                    .iter()
                    .map(|frame| frame.0)
                    .take_while(|pc| *pc != 0)
                    .collect::<Vec<_>>()
            );
            assert_eq!(
                stacks[..50],
                expected[1..51].iter().map(|frame| frame.1).collect::<Vec<_>>()
            );
            assert!(traced[0].exact && !traced[1].exact);
        }
        assert!(cache.len() > 10);
    };
    recurse(50, &mut leaf);
}

#[test]
fn a_pc_that_nothing_describes_is_refused() {
    let code = Code::new();
    let mut cache = RuleCache::new();
    let context = RegisterSet::capture();
    let result = frames(&code, &mut cache, [this_thread::stack()], context);
    assert_eq!(result, Err(WalkError::NoRule { pc: context.pc() }));
    // Images that have not been read, with a cache for signal handlers.
    code.refresh_images();
    let mut fixed = RuleCache::fixed(100);
    let result = frames(&code, &mut fixed, [this_thread::stack()], context);
    assert_eq!(result, Err(WalkError::Image { pc: context.pc() }));
    code.snapshot().read_images().unwrap();
    assert!(frames(&code, &mut fixed, [this_thread::stack()], context).is_ok());
}

#[cfg(target_arch = "x86_64")]
const MARKED: [gimli::Register; 4] =
    [gimli::X86_64::R12, gimli::X86_64::R13, gimli::X86_64::R14, gimli::X86_64::R15];
#[cfg(target_arch = "x86")]
const MARKED: [gimli::Register; 3] = [gimli::X86::EBX, gimli::X86::ESI, gimli::X86::EDI];
#[cfg(target_arch = "aarch64")]
const MARKED: [gimli::Register; 4] =
    [gimli::AArch64::X24, gimli::AArch64::X25, gimli::AArch64::X26, gimli::AArch64::V9];

#[test]
fn callee_saved_registers_are_recovered() {
    let code = Code::new();
    code.refresh_images();
    let mut cache = RuleCache::new();
    let registers = MARKED;
    let markers: Vec<_> = (1..=registers.len()).map(|i| Some(i * 0x1111)).collect();
    extern "C" fn leaf(data: *mut &mut dyn FnMut()) {
        // Uses all callee-saved registers itself, at any level of optimisation.
        // SAFETY: writes registers that it declares as written.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!(
                "mov r12, 1", "mov r13, 2", "mov r14, 3", "mov r15, 4",
                out("r12") _, out("r13") _, out("r14") _, out("r15") _
            );
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!(
                "mov x24, #1", "mov x25, #2", "mov x26, #3", "fmov d9, x24",
                out("x24") _, out("x25") _, out("x26") _, out("v9") _
            );
            (*data)();
        }
    }
    let mut look = || {
        let context = RegisterSet::capture();
        let snapshot = code.snapshot();
        let mut trace = Unwinder::new(&snapshot, &mut cache, this_thread::stack(), (), context);
        let mut seen = false;
        while let Some(frame) = trace.next_frame().unwrap() {
            let values: Vec<_> =
                registers.iter().map(|register| trace.register(*register)).collect();
            let found = values == markers;
            if found {
                let slot =
                    trace.register_slot(registers[1]).expect("it was saved by a younger frame");
                assert!(slot < frame.cfa);
            }
            seen |= found;
        }
        assert!(seen, "no frame had the markers in its registers");
    };
    let mut look: &mut dyn FnMut() = &mut look;
    // SAFETY: calls a C function with its argument, and restores the registers that the compiler
    // may be using.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "mov r12, 0x1111", "mov r13, 0x2222", "mov r14, 0x3333", "mov r15, 0x4444",
            "call {leaf}",
            leaf = sym leaf, in("rdi") &raw mut look,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _, clobber_abi("C")
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86")]
    unsafe {
        stackmark_test_marked(leaf as *const c_void, (&raw mut look).cast());
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "mov x24, #0x1111", "mov x25, #0x2222", "mov x26, #0x3333", "mov x9, #0x4444",
            "fmov d9, x9", "bl {leaf}",
            leaf = sym leaf, in("x0") &raw mut look,
            out("x24") _, out("x25") _, out("x26") _, clobber_abi("C")
        );
    }
}

// Calls a function with its argument, from a frame with the markers in its registers, by one that
// uses them. The compiler leaves esi to no inline assembly.
#[cfg(target_arch = "x86")]
std::arch::global_asm!(
    "stackmark_test_marked:",
    ".cfi_startproc",
    "push ebx\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset ebx, 0",
    "push esi\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset esi, 0",
    "push edi\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset edi, 0",
    "mov eax, [esp + 16]",
    "mov ecx, [esp + 20]",
    "sub esp, 12\n .cfi_adjust_cfa_offset 12",
    "push ecx\n .cfi_adjust_cfa_offset 4",
    "mov ebx, 0x1111",
    "mov esi, 0x2222",
    "mov edi, 0x3333",
    "call 2f",
    "add esp, 16\n .cfi_adjust_cfa_offset -16",
    "pop edi\n .cfi_adjust_cfa_offset -4\n .cfi_restore edi",
    "pop esi\n .cfi_adjust_cfa_offset -4\n .cfi_restore esi",
    "pop ebx\n .cfi_adjust_cfa_offset -4\n .cfi_restore ebx",
    "ret",
    ".cfi_endproc",
    "2:",
    ".cfi_startproc",
    "push ebx\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset ebx, 0",
    "push esi\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset esi, 0",
    "push edi\n .cfi_adjust_cfa_offset 4\n .cfi_rel_offset edi, 0",
    "mov ebx, 1",
    "mov esi, 2",
    "mov edi, 3",
    "sub esp, 12\n .cfi_adjust_cfa_offset 12",
    "push [esp + 28]\n .cfi_adjust_cfa_offset 4",
    "call eax",
    "add esp, 16\n .cfi_adjust_cfa_offset -16",
    "pop edi\n .cfi_adjust_cfa_offset -4\n .cfi_restore edi",
    "pop esi\n .cfi_adjust_cfa_offset -4\n .cfi_restore esi",
    "pop ebx\n .cfi_adjust_cfa_offset -4\n .cfi_restore ebx",
    "ret",
    ".cfi_endproc",
);

#[cfg(target_arch = "x86")]
unsafe extern "C" {
    fn stackmark_test_marked(call: *const c_void, data: *mut c_void);
}

/// A signal handler's traces: from its own frame on, and from the interrupted one on.
type Seen = (Vec<CallFrame>, Vec<(usize, usize)>, Vec<CallFrame>);

struct Handler {
    code: Code,
    cache: RuleCache,
    memory: [LiveMemory; 2],
    seen: Option<Seen>,
}

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

extern "C" fn on_signal(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    HANDLER.with_borrow_mut(|handler| {
        let Handler { code, cache, memory, seen } =
            handler.as_mut().expect("set before the signal is raised");
        let context = RegisterSet::capture();
        let expected = this_thread::system_frames();
        let own = frames(code, cache, memory.clone(), context).unwrap();
        // SAFETY: the kernel passes the interrupted context.
        let interrupted = RegisterSet::interrupted(unsafe { &*interrupted });
        *seen = Some((own, expected, frames(code, cache, memory.clone(), interrupted).unwrap()));
    });
}

#[test]
fn a_trace_goes_through_a_signal_frame_on_another_stack() {
    let alternate = vec![0_u64; 1 << 17];
    let start = alternate.as_ptr() as usize;
    let code = Code::new();
    code.refresh_images();
    code.snapshot().read_images().unwrap();
    // SAFETY: the handler runs on memory that outlives it, and the vector stays in place.
    let memory = unsafe {
        let stack = libc::stack_t {
            ss_sp: start as *mut c_void,
            ss_flags: 0,
            ss_size: size_of_val(&*alternate),
        };
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        [this_thread::stack(), LiveMemory::new(start..start + size_of_val(&*alternate))]
    };
    let mut code = Some(code);
    let mut leaf = || {
        // From below the frames of `raise`.
        let stack = this_thread::stack().bounds();
        // SAFETY: the thread's stack goes on below.
        let stack = unsafe { LiveMemory::new(stack.start - 4096..stack.end) };
        let memory = [stack, memory[1].clone()];
        let code = code.take().expect("one call");
        HANDLER.set(Some(Handler { code, cache: RuleCache::fixed(1000), memory, seen: None }));
        // SAFETY: the handler is installed.
        unsafe { libc::raise(libc::SIGUSR1) };
    };
    recurse(20, &mut leaf);
    let (own, expected, interrupted) = HANDLER.take().unwrap().seen.unwrap();
    let signal = own.iter().position(|frame| frame.signal_frame).expect("a signal frame");
    assert!(own[signal + 1].exact, "what was interrupted stands at an exact pc");
    assert_eq!(own[signal + 1].pc, interrupted[0].pc);
    let pcs = |frames: &[CallFrame]| frames.iter().map(|frame| frame.pc).collect::<Vec<_>>();
    assert_eq!(pcs(&own[signal + 1..]), pcs(&interrupted));
    // The two walks begin at different calls in the handler.
    let common = own.len() - signal;
    let expected: Vec<usize> = expected.iter().map(|frame| frame.0).filter(|pc| *pc != 0).collect();
    assert_eq!(pcs(&own[signal..]), expected[expected.len() - common..]);
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
    use stackmark_unwind::{Memory, Recovered, Region, Snapshot};

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
            if PC != RA {
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
            registers[usize::from(PC.0)] = Some(first);
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
