//! Stacks to walk: functions in assembly, each with a frame of its own, that call each other as an
//! array says.

use std::ops::Range;

/// Distinct functions of each flavour, and how far apart they lie.
const FUNCTIONS: usize = 4096;
const STRIDE: usize = 128;

// Each calls the function that rdi points to, with rdi advanced. Function i pushes up to four
// registers and makes room for up to nine pairs of words, so that frames have different sizes and
// registers are saved at different places.
macro_rules! functions {
    ($label:literal, $prologue:literal, $epilogue:literal, $words:literal) => {
        std::arch::global_asm!(
            ".balign 128",
            concat!(".globl ", $label),
            concat!($label, ":"),
            ".set i, 0",
            ".rept 4096",
            ".balign 128",
            ".cfi_startproc",
            ".set words, 1",
            $prologue,
            ".if i % 2",
            "push rbx",
            ".set words, words + 1",
            $words,
            ".cfi_offset rbx, -8 * words",
            ".endif",
            ".if i % 3 == 1",
            "push r12",
            ".set words, words + 1",
            $words,
            ".cfi_offset r12, -8 * words",
            ".endif",
            ".if i % 5 < 3",
            "push r13",
            ".set words, words + 1",
            $words,
            ".cfi_offset r13, -8 * words",
            ".endif",
            ".if i % 7 < 4",
            "push r14",
            ".set words, words + 1",
            $words,
            ".cfi_offset r14, -8 * words",
            ".endif",
            ".set room, 16 * (i % 9) + 8 * ((words + 1) % 2) + 8",
            "sub rsp, room",
            ".set words, words + room / 8",
            $words,
            "mov rax, [rdi]",
            "add rdi, 8",
            "call rax",
            "add rsp, room",
            ".set words, words - room / 8",
            $words,
            ".if i % 7 < 4",
            "pop r14",
            ".set words, words - 1",
            $words,
            ".cfi_restore r14",
            ".endif",
            ".if i % 5 < 3",
            "pop r13",
            ".set words, words - 1",
            $words,
            ".cfi_restore r13",
            ".endif",
            ".if i % 3 == 1",
            "pop r12",
            ".set words, words - 1",
            $words,
            ".cfi_restore r12",
            ".endif",
            ".if i % 2",
            "pop rbx",
            ".set words, words - 1",
            $words,
            ".cfi_restore rbx",
            ".endif",
            $epilogue,
            "ret",
            ".cfi_endproc",
            ".set i, i + 1",
            ".endr",
            concat!($label, "_end:"),
        );
    };
}

functions!(
    "stackmark_bench_fp",
    "push rbp\n .set words, words + 1\n .cfi_def_cfa_offset 16\n .cfi_offset rbp, -16\n \
     mov rbp, rsp\n .cfi_def_cfa_register rbp",
    "pop rbp\n .cfi_restore rbp\n .cfi_def_cfa rsp, 8",
    ""
);
functions!("stackmark_bench_sp", "", "", ".cfi_def_cfa_offset 8 * words");

// The youngest: passes its frame pointer, from which the chain of the others begins.
std::arch::global_asm!(
    "stackmark_bench_leaf:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rsi, rbp",
    "mov rdi, [rdi]",
    "and rsp, -16",
    "call {leaf}",
    "mov rsp, rbp",
    "pop rbp",
    ".cfi_restore rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    leaf = sym leaf,
);

unsafe extern "C" {
    fn stackmark_bench_fp();
    fn stackmark_bench_sp();
    fn stackmark_bench_leaf();
}

extern "C" fn leaf(callback: *mut &mut dyn FnMut(usize), fp: usize) {
    // SAFETY: `run` has put it at the end of the array.
    unsafe { (*callback)(fp) };
}

/// How the functions' frames are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    FramePointers,
    StackPointer,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::FramePointers => "with frame pointers",
            Flavour::StackPointer => "without frame pointers",
        }
    }

    fn start(self) -> usize {
        match self {
            Flavour::FramePointers => stackmark_bench_fp as *const () as usize,
            Flavour::StackPointer => stackmark_bench_sp as *const () as usize,
        }
    }
}

/// How many functions the stack consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Mono,
    Poly(usize),
}

impl Shape {
    pub(crate) fn name(self) -> String {
        match self {
            Shape::Mono => "mono".into(),
            Shape::Poly(functions) => format!("poly{functions}"),
        }
    }
}

/// Where all functions lie.
pub(crate) fn functions() -> Range<usize> {
    let starts = [Flavour::FramePointers, Flavour::StackPointer].map(Flavour::start);
    starts[0].min(starts[1])..starts[0].max(starts[1]) + FUNCTIONS * STRIDE
}

/// Calls `leaf` at the youngest end of a stack of `depth` frames, with the frame pointer there.
pub(crate) fn run(shape: Shape, flavour: Flavour, depth: usize, leaf: &mut dyn FnMut(usize)) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match shape {
            Shape::Mono => 7,
            Shape::Poly(functions) => state as usize % functions,
        }
    };
    let mut calls: Vec<usize> = (0..depth).map(|_| flavour.start() + next() * STRIDE).collect();
    let first = calls[0];
    calls.push(stackmark_bench_leaf as *const () as usize);
    let mut leaf = leaf;
    calls.push(&raw mut leaf as usize);
    // SAFETY: the functions call each other by the array, down to the leaf, which finds the
    // callback behind itself.
    unsafe {
        let first = std::mem::transmute::<usize, extern "C" fn(*const usize)>(first);
        first(calls.as_ptr().add(1));
    }
}
