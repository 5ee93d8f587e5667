//! Registered code that runs. The system's unwinder, panics and gdb cross its frames.
// It is about the CFI of compiled code, and its functions have another convention there.
#![cfg(not(windows))]

mod support;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::process::Command;

use gimli::write::CallFrameInstruction as Cfi;
use stackmark_unwind::{Code, Function, Region, RegionId};
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
use stackmark_unwind::{LiveMemory, RegisterSet, RuleCache, Unwinder};
use support::arch::{self, FP, RA, SP};
use support::{eh_frame, frame_record};

/// The frame of the code below, its epilogue included.
fn frame() -> Vec<(u32, Cfi)> {
    let mut frame = frame_record();
    frame.extend([
        (RETURN as u32, Cfi::Cfa(SP, arch::CALL_PUSHES as i32)),
        (RETURN as u32, Cfi::SameValue(FP)),
    ]);
    if arch::CALL_PUSHES == 0 {
        frame.push((RETURN as u32, Cfi::SameValue(RA)));
    }
    frame
}

/// A function that calls `target`: `push rbp; mov rbp, rsp; mov rax, imm64; call rax; pop rbp;
/// ret`.
#[cfg(target_arch = "x86_64")]
fn calls(target: usize) -> Vec<u8> {
    let mut code = vec![0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8];
    code.extend(target.to_le_bytes());
    code.extend([0xff, 0xd0, 0x5d, 0xc3]);
    code
}

/// Its length, and where in it lie the call's return address and the `ret`.
#[cfg(target_arch = "x86_64")]
const LEN: usize = 18;
#[cfg(target_arch = "x86_64")]
const CALLED: usize = 16;
#[cfg(target_arch = "x86_64")]
const RETURN: usize = 17;

/// The same for i686, with a stack that is aligned at the call: `push ebp; mov ebp, esp; sub esp,
/// 8; mov eax, imm32; call eax; leave; ret`.
#[cfg(target_arch = "x86")]
fn calls(target: usize) -> Vec<u8> {
    let mut code = vec![0x55, 0x89, 0xe5, 0x83, 0xec, 0x08, 0xb8];
    code.extend(target.to_le_bytes());
    code.extend([0xff, 0xd0, 0xc9, 0xc3]);
    code
}

#[cfg(target_arch = "x86")]
const LEN: usize = 15;
#[cfg(target_arch = "x86")]
const CALLED: usize = 13;
#[cfg(target_arch = "x86")]
const RETURN: usize = 14;

/// The same for arm64: `stp x29, x30, [sp, #-16]!; mov x29, sp; ldr x16, target; blr x16;
/// ldp x29, x30, [sp], #16; ret; target`.
#[cfg(target_arch = "aarch64")]
fn calls(target: usize) -> Vec<u8> {
    let code: [u32; 6] =
        [0xa9bf_7bfd, 0x9100_03fd, 0x5800_0090, 0xd63f_0200, 0xa8c1_7bfd, 0xd65f_03c0];
    let mut code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(target.to_le_bytes());
    code
}

#[cfg(target_arch = "aarch64")]
const LEN: usize = 32;
#[cfg(target_arch = "aarch64")]
const CALLED: usize = 16;
#[cfg(target_arch = "aarch64")]
const RETURN: usize = 20;

/// The same for armv7: `push {r11, lr}; mov r11, sp; ldr r12, target; blx r12; pop {r11, lr};
/// bx lr; target`.
#[cfg(target_arch = "arm")]
fn calls(target: usize) -> Vec<u8> {
    let code: [u32; 6] =
        [0xe92d_4800, 0xe1a0_b00d, 0xe59f_c008, 0xe12f_ff3c, 0xe8bd_4800, 0xe12f_ff1e];
    let mut code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(target.to_le_bytes());
    code
}

#[cfg(target_arch = "arm")]
const LEN: usize = 28;
#[cfg(target_arch = "arm")]
const CALLED: usize = 16;
#[cfg(target_arch = "arm")]
const RETURN: usize = 20;

/// Two such functions: `outer` calls `inner` calls a native function.
struct Jit {
    code: Code,
    id: RegionId,
    start: usize,
}

const PAGE: usize = 4096;
const INNER: usize = 0x40;

type Native = extern "C-unwind" fn();

/// Makes instructions that were written the ones that run.
///
/// # Safety
/// They lie in memory of this process.
unsafe fn written(_code: std::ops::Range<usize>) {
    #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
    unsafe {
        unsafe extern "C" {
            fn __clear_cache(begin: *mut std::ffi::c_void, end: *mut std::ffi::c_void);
        }
        __clear_cache(_code.start as *mut _, _code.end as *mut _);
    }
}

impl Jit {
    fn new(callee: Native, name: &str) -> Jit {
        // SAFETY: a fresh mapping.
        let page = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        let start = page as usize;
        for (at, target) in [(0, start + INNER), (INNER, callee as *const () as usize)] {
            let code = calls(target);
            assert_eq!(code.len(), LEN);
            // SAFETY: the page is ours, writable, and larger than both functions.
            unsafe {
                std::ptr::copy_nonoverlapping(code.as_ptr(), (start + at) as *mut u8, LEN);
                written(start + at..start + at + LEN);
            }
        }
        let functions = [("outer", 0), ("inner", INNER)];
        let code = Code::new();
        let id = code
            .register(Region {
                name: name.into(),
                start,
                len: PAGE,
                eh_frame: eh_frame(functions.map(|(_, at)| (start + at, LEN as u32, frame()))),
                functions: functions
                    .map(|(function, at)| Function {
                        name: format!("{name}_{function}"),
                        start: start + at,
                        len: LEN,
                        ..Function::default()
                    })
                    .into(),
                ..Region::default()
            })
            .unwrap();
        Jit { code, id, start }
    }

    fn run(&self) {
        // SAFETY: `outer` is a complete function of that type.
        let outer = unsafe { std::mem::transmute::<usize, Native>(self.start) };
        outer();
        // Keeps the call from becoming a jump.
        std::hint::black_box(self);
    }
}

fn pcs() -> Vec<usize> {
    this_thread::system_frames().into_iter().map(|(pc, _)| pc).collect()
}

thread_local! {
    static SEEN: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
}

extern "C-unwind" fn look() {
    SEEN.with(|seen| *seen.borrow_mut() = pcs());
}

extern "C-unwind" fn panics() {
    panic!("through managed frames");
}

#[test]
fn a_system_backtrace_crosses_managed_frames_and_goes_on_behind_them() {
    let jit = Jit::new(look, "traced");
    let depth = pcs().len();
    jit.run();
    let seen = SEEN.take();
    let managed: Vec<usize> =
        seen.iter().filter(|pc| (jit.start..jit.start + PAGE).contains(pc)).copied().collect();
    assert_eq!(managed, [jit.start + INNER + CALLED, jit.start + CALLED]);
    assert!(seen.len() > depth, "the frames of the test itself are seen too");
    let snapshot = jit.code.snapshot();
    assert_eq!(snapshot.function(managed[0] - 1).unwrap().name, "traced_inner");
    drop(snapshot);
    jit.code.unregister(jit.id).unwrap();
    jit.run();
    assert!(SEEN.take().len() < seen.len(), "the system's unwinder has forgotten the region");
}

#[test]
fn a_panic_crosses_managed_frames() {
    let jit = Jit::new(panics, "crossed");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| jit.run()));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"through managed frames"));
}

/// The state of a single-stepped run.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
struct Stepping {
    code: *const Code,
    region: std::ops::Range<usize>,
    stack: std::ops::Range<usize>,
    /// For each step in the region: the pc, the number of managed frames in the trace, and whether
    /// the trace left them.
    steps: Vec<(usize, usize, bool)>,
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
static STEPPING: std::sync::atomic::AtomicPtr<Stepping> =
    std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
extern "C" fn on_trap(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    // Relaxed: the same thread stored it.
    let stepping = STEPPING.load(std::sync::atomic::Ordering::Relaxed);
    if stepping.is_null() {
        return;
    }
    // SAFETY: the test keeps it alive while its thread takes traps, and reads it only afterwards.
    let (stepping, interrupted) = unsafe { (&mut *stepping, &*interrupted) };
    let context = RegisterSet::interrupted(interrupted);
    if !stepping.region.contains(&context.pc()) {
        return;
    }
    // SAFETY: as above; the stack is this thread's own, and mapped from here on.
    let (code, memory) = unsafe { (&*stepping.code, LiveMemory::new(stepping.stack.clone())) };
    let snapshot = code.snapshot();
    let mut cache = RuleCache::fixed(64);
    let mut trace = Unwinder::new(&snapshot, &mut cache, memory, (), context);
    let (mut managed, mut out) = (0, false);
    while let Ok(Some(frame)) = trace.next_frame() {
        managed += 1;
        out = !stepping.region.contains(&frame.return_address);
        if out {
            break;
        }
    }
    if stepping.steps.len() < stepping.steps.capacity() {
        stepping.steps.push((context.pc(), managed, out));
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
extern "C-unwind" fn nothing() {}

/// Sets or clears the trap flag.
///
/// # Safety
/// A handler takes the traps.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[inline(always)]
unsafe fn trap_each_instruction(on: bool) {
    // SAFETY: as the caller promises; what is pushed is popped.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        if on {
            std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
        } else {
            std::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq");
        }
    }
    // SAFETY: as above.
    #[cfg(target_arch = "x86")]
    unsafe {
        if on {
            std::arch::asm!("pushfd", "or dword ptr [esp], 0x100", "popfd");
        } else {
            std::arch::asm!("pushfd", "and dword ptr [esp], ~0x100", "popfd");
        }
    }
}

// The processor has no trap flag.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[test]
fn a_signal_at_any_instruction_of_managed_code_finds_its_callers() {
    let jit = Jit::new(nothing, "stepped");
    jit.code.refresh_images();
    jit.code.snapshot().read_images().unwrap();
    let here = 0_usize;
    let here = &raw const here as usize;
    let mut stepping = Stepping {
        code: &raw const jit.code,
        region: jit.start..jit.start + PAGE,
        stack: here - 0x4000..here + 0x400,
        steps: Vec::with_capacity(100),
    };
    // SAFETY: the handler is signal-safe. The trap flag is set and cleared around the run.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()), 0);
        STEPPING.store(&raw mut stepping, std::sync::atomic::Ordering::Relaxed);
        trap_each_instruction(true);
        jit.run();
        trap_each_instruction(false);
        STEPPING.store(std::ptr::null_mut(), std::sync::atomic::Ordering::Relaxed);
    }
    // push, mov, mov, call, pop, ret, in both functions; on i686 one more, for the alignment.
    let instructions = if cfg!(target_arch = "x86") { 14 } else { 12 };
    assert_eq!(stepping.steps.len(), instructions, "{:x?}", stepping.steps);
    for (pc, managed, out) in stepping.steps {
        let expected = 1 + usize::from(pc >= jit.start + INNER);
        assert!(out && managed == expected, "at {:#x}: {managed} frames, {out}", pc - jit.start);
    }
}

extern "C-unwind" fn gdb_stops_here() {
    std::hint::black_box(());
}

#[test]
#[ignore = "the program that gdb_names_managed_frames runs under gdb"]
fn inferior() {
    // Another region on either side, which is gone when gdb looks.
    let before = Jit::new(look, "before");
    let jit = Jit::new(gdb_stops_here, "shown");
    let after = Jit::new(look, "after");
    before.code.unregister(before.id).unwrap();
    after.code.unregister(after.id).unwrap();
    jit.run();
    println!("inferior done");
}

#[test]
fn gdb_names_managed_frames_and_walks_past_them() {
    if arch::is_emulated() {
        eprintln!("skipped: gdb sees the emulator");
        return;
    }
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: gdb is not installed");
        return;
    }
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set debuginfod enabled off"])
        .args([
            "-ex",
            "break real_code::gdb_stops_here",
            "-ex",
            "run",
            "-ex",
            "backtrace 6",
            "-ex",
            "continue",
        ])
        .arg("--args")
        .arg(std::env::current_exe().unwrap())
        .args(["inferior", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let frame = |number: usize| {
        let start = format!("#{number} ");
        text.lines()
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("no frame {number} in:\n{text}"))
    };
    assert!(frame(0).contains("gdb_stops_here"), "{text}");
    assert!(frame(1).contains("in shown_inner ()"), "{text}");
    assert!(frame(2).contains("in shown_outer ()"), "{text}");
    assert!(frame(3).contains("real_code::"), "{text}");
    assert!((3..6).any(|number| frame(number).contains("real_code::inferior")), "{text}");
    assert!(text.contains("inferior done"), "{text}");
}
