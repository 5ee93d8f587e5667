//! arm64.

use stackmark_asm::barrier;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// DWARF's number of the register that has the return address.
pub(crate) const RETURN_REGISTER: u16 = 30;
/// Callee-saved registers in which `managed` of `switches.s` keeps values.
pub(crate) const KEPT: usize = 19;
/// Those in which `managed_kept_by` of `native.s` does.
pub(crate) const KEPT_BY_NATIVE: usize = 10;
/// Words in which a native function may return something.
pub(crate) const RESULT_WORDS: usize = 10;

/// Words of the patterns with which `fill_and_check` fills registers: general ones, vectors from
/// word 32, predicates from word [`PREDICATES`].
pub(crate) const PATTERN_WORDS: usize = PREDICATES + 16 * 4;
const PREDICATES: usize = 32 + 32 * 32;
/// Kinds of vectors that a processor may have.
pub(crate) const VECTOR_KINDS: u32 = 2;
/// Other states in which a function may return.
pub(crate) const OTHER_STATES: usize = 1;

unsafe extern "C" {
    pub(crate) fn fill_and_check(
        input: *const u64,
        output: *mut u64,
        word: usize,
        saved: *const AtomicUsize,
        kind: usize,
        state: usize,
    );
    pub(crate) fn spoil(kind: usize);
    fn vector_bytes(kind: usize) -> usize;
    fn __clear_cache(begin: *mut u32, end: *mut u32);
}

/// Changes what cannot hold any pattern.
pub(crate) fn adjust_patterns(_patterns: &mut [u64]) {}

/// The bits of a word of the patterns that a hit must keep.
pub(crate) fn kept_bits(i: usize, kind: usize, _state: usize) -> u64 {
    let bytes = unsafe { vector_bytes(kind) };
    let first = |bytes: usize, byte: usize| match bytes.saturating_sub(byte) {
        0 => 0,
        rest @ 1..8 => (1 << (8 * rest)) - 1,
        _ => u64::MAX,
    };
    match i {
        0..16 | 19..30 => u64::MAX,
        // Linkers and the platform have x16 to x18; x30 and sp lead back.
        ..32 => 0,
        ..PREDICATES => first(bytes, (i - 32) % 32 * 8),
        _ if kind == 0 => 0,
        _ => first(bytes / 8, (i - PREDICATES) % 4 * 8),
    }
}

/// Whether the word may hold a result by the platform's C convention, or its callee keeps it. A hit
/// keeps more.
pub(crate) fn is_kept_by_convention(_i: usize) -> bool {
    true
}

const BREAK: u32 = 0xd420_0000;
const RETURN: u32 = 0xd65f_03c0;

/// The instructions that are replaced by breaks, and what they were.
struct Breaks {
    instructions: Vec<(usize, u32)>,
    /// The one that is itself meanwhile, since it runs.
    running: Option<usize>,
}

static BREAKS: AtomicPtr<Breaks> = AtomicPtr::new(std::ptr::null_mut());

unsafe fn write(pc: usize, instruction: u32) {
    unsafe {
        let place = pc as *mut u32;
        place.write_volatile(instruction);
        __clear_cache(place, place.add(1));
    }
}

/// The last instruction of each of the unwinder's functions that go on elsewhere than they were
/// called from: the `ret` behind a change of the stack pointer by a register. Before that change
/// libgcc's CFI is wrong.
fn last_of_unwinder() -> impl Iterator<Item = usize> {
    unsafe extern "C" {
        fn _Unwind_Resume();
        fn _Unwind_RaiseException();
        fn _Unwind_ForcedUnwind();
    }
    const BYTES: usize = 4096;
    let functions: [unsafe extern "C" fn(); 3] =
        [_Unwind_Resume, _Unwind_RaiseException, _Unwind_ForcedUnwind];
    functions.into_iter().map(|function| {
        let start = function as *const () as usize;
        let at = move |pc: usize| unsafe { (pc as *const u32).read() };
        // `add sp, sp, xN`
        let is_last =
            move |pc: &usize| at(*pc) == RETURN && at(*pc - 4) & 0xffe0_ffff == 0x8b20_63ff;
        let last = (start + 4..start + BYTES).step_by(4).find(is_last);
        last.unwrap_or_else(|| panic!("no end of the unwinder's {start:#x}"))
    })
}

/// Makes a signal come at each instruction of the assembly, and at the unwinder's last ones. Each
/// of them is a break, but the one that runs.
///
/// # Safety
/// `SIGTRAP` has a handler that calls [`pass`]. No other thread runs this code meanwhile.
pub(crate) unsafe fn begin_steps(assembly: Range<usize>) {
    let pool = barrier::pool();
    let code = assembly.step_by(4).filter(|pc| {
        // The headers of the pool's pages are no instructions.
        !pool.contains(pc) || barrier::is_stub(barrier::index_of(*pc).expect("in the pool"))
    });
    let instructions: Vec<(usize, u32)> = code
        .chain(last_of_unwinder())
        .map(|pc| (pc, unsafe { (pc as *const u32).read() }))
        .filter(|(_, instruction)| instruction & 0xffe0_001f != BREAK)
        .collect();
    let mut pages: Vec<usize> = instructions.iter().map(|(pc, _)| pc & !0xffff).collect();
    pages.dedup();
    for page in pages {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        for part in (page..page + 0x10000).step_by(4096) {
            // What is mapped of it.
            unsafe { libc::mprotect(part as *mut _, 4096, all) };
        }
    }
    for (pc, _) in &instructions {
        unsafe { write(*pc, BREAK) };
    }
    let breaks = Box::new(Breaks { instructions, running: None });
    BREAKS.store(Box::into_raw(breaks), Relaxed);
}

/// Puts all instructions back.
///
/// # Safety
/// Follows a `begin_steps`.
pub(crate) unsafe fn end_steps() {
    let breaks = unsafe { Box::from_raw(BREAKS.swap(std::ptr::null_mut(), Relaxed)) };
    for (pc, instruction) in &breaks.instructions {
        unsafe { write(*pc, *instruction) };
    }
}

/// Lets the instruction run at which the signal has come, and makes the one before a break again.
///
/// # Safety
/// `context` is the handler's.
pub(crate) unsafe fn pass(context: *mut libc::ucontext_t, _go_on: bool) {
    let pc = unsafe { interrupted_pc(context) };
    let breaks = unsafe { &mut *BREAKS.load(Relaxed) };
    if let Some(before) = breaks.running.replace(pc) {
        unsafe { write(before, BREAK) };
    }
    let place = breaks.instructions.iter().find(|(at, _)| *at == pc);
    let (_, instruction) = place.unwrap_or_else(|| panic!("a break of another's at {pc:#x}"));
    unsafe { write(pc, *instruction) };
}

/// The pc that a signal has interrupted.
///
/// # Safety
/// `context` is a handler's.
pub(crate) unsafe fn interrupted_pc(context: *mut libc::ucontext_t) -> usize {
    unsafe { (*context).uc_mcontext.pc as usize }
}
