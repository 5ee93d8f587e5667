//! Traces of this process, compared with the system's unwinder frame by frame.
// Native code for armv7 has no CFI.
#![cfg(not(target_arch = "arm"))]
// It is about the CFI of the process. tests/windows.rs has the like of it.
#![cfg(not(windows))]

mod support;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::cell::RefCell;
use std::ffi::c_void;
use std::hint::black_box;

use stackmark_unwind::{CallFrame, Code, LiveMemory, RegisterSet, RuleCache, Unwinder, WalkError};

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
