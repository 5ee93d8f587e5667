//! Traces of this process, compared with the system's unwinder frame by frame.

mod support;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::cell::RefCell;
use std::ffi::c_void;
use std::hint::black_box;

use gimli::X86_64;
use stackmark_unwind::{
    CallFrame, Code, LiveMemory, MemorySnapshot, RegisterSet, RuleCache, Unwinder, WalkError,
};

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

#[test]
fn callee_saved_registers_are_recovered() {
    let code = Code::new();
    code.refresh_images();
    let mut cache = RuleCache::new();
    let markers = [0x1111, 0x2222, 0x3333, 0x4444_usize];
    let registers = [X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
    extern "C" fn leaf(data: *mut &mut dyn FnMut()) {
        // Uses all callee-saved registers itself, at any level of optimisation.
        // SAFETY: writes registers that it declares as written.
        unsafe {
            std::arch::asm!(
                "mov r12, 1", "mov r13, 2", "mov r14, 3", "mov r15, 4",
                out("r12") _, out("r13") _, out("r14") _, out("r15") _
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
            let found = values == markers.map(Some);
            if found {
                let slot =
                    trace.register_slot(X86_64::R13).expect("it was saved by a younger frame");
                assert!(slot < frame.cfa);
            }
            seen |= found;
        }
        assert!(seen, "no frame had the markers in its registers");
    };
    let mut look: &mut dyn FnMut() = &mut look;
    // SAFETY: calls a C function with its argument, and restores the registers that the compiler
    // may be using.
    unsafe {
        std::arch::asm!(
            "mov r12, 0x1111", "mov r13, 0x2222", "mov r14, 0x3333", "mov r15, 0x4444",
            "call {leaf}",
            leaf = sym leaf, in("rdi") &raw mut look,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _, clobber_abi("C")
        );
    }
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
            ss_size: alternate.len() * 8,
        };
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        [this_thread::stack(), LiveMemory::new(start..start + alternate.len() * 8)]
    };
    let mut code = Some(code);
    let mut leaf = || {
        let memory = [this_thread::stack(), memory[1].clone()];
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
    let registers = [X86_64::RBP, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
    // Function i saves the registers of its bits. Bit 64 stands for a frame pointer.
    let functions = (0..=64_usize).map(|i| {
        let mut instructions = vec![(1, Cfi::CfaOffset(16))];
        if i == 64 {
            instructions
                .extend([(1, Cfi::Offset(X86_64::RBP, -16)), (4, Cfi::CfaRegister(X86_64::RBP))]);
        } else {
            instructions.push((1, Cfi::CfaOffset(64)));
            for (bit, register) in
                registers.into_iter().enumerate().filter(|(bit, _)| i >> bit & 1 != 0)
            {
                instructions.push((1, Cfi::Offset(register, -16 - 8 * bit as i32)));
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
            _ => ((state >> 40) as usize % 64) & !(1 << 5 | 1),
        }
    };
    const FRAMES: usize = 1500;
    let mut of_frames: Vec<usize> = (0..FRAMES).map(|_| function()).collect();
    // A run longer than the frames that are searched together, and a register saved long before.
    of_frames[600..1100].fill(64);
    of_frames[3] = 1 << 5 | 1 << 2;
    let mut words = vec![0; 8 * (FRAMES + 1)];
    let at = |frame: usize, word: usize| 8 * frame + word;
    for frame in 0..FRAMES {
        let older = (frame + 1..FRAMES).find(|older| of_frames[*older] == 64).unwrap_or(FRAMES);
        words[at(frame, 6)] = STACK + 8 * at(older, 6);
        words[at(frame, 7)] =
            START + 0x100 * of_frames.get(frame + 1).copied().unwrap_or(64) + 0x80;
    }
    let first = of_frames.iter().position(|function| *function == 64).unwrap();
    let memory = MemorySnapshot { start: STACK, words };
    let context = || {
        let mut context =
            RegisterSet::new(START + 0x100 * of_frames[0] + 0x80, STACK, STACK + 8 * at(first, 6));
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
                STACK + 8 * at(frame + 1, 0),
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
            assert_eq!(all.register(X86_64::RBP), one.register(X86_64::RBP));
        }
        if frames > 5 {
            assert_eq!(
                one.register_slot(X86_64::R15),
                Some(STACK + 8 * at(4, 0) - 16 - 40),
                "saved long ago"
            );
        }
    }
}
