//! Programs with CFI of every kind, built by the system's tools and run here: full and lean walks
//! see the frames and the callee-saved registers that the system's unwinder sees.
//!
//! Stored programs are of kinds that compilers or people write. Generated ones are chains of
//! functions in assembler, each a random walk through the directives.
// It loads libraries that the system's compiler builds, which wine does not run.
#![cfg(not(windows))]
// Its programs are in assembly for x86-64 and i686.
#![cfg(any(target_arch = "x86_64", target_arch = "x86"))]

#[path = "support/looks.rs"]
mod looks;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::cell::Cell;
use std::fmt::Write;

use looks::{LABEL, LOOKS, look, run};
use programs::Directory;
use stackmark_unwind::{Code, RegisterSet, RuleCache, Unwinder, WalkError};

/// What the programs say of the architecture.
#[cfg(target_arch = "x86_64")]
mod target {
    macro_rules! program {
        ($name:literal) => {
            include_str!(concat!("walks/", $name))
        };
    }
    pub(super) use program;

    pub(super) const SP: &str = "rsp";
    pub(super) const FP: &str = "rbp";
    /// What `g0` is given is in it, from `g0` on.
    pub(super) const GIVEN: &str = "rdi";
    pub(super) const TAKES: &str = "";
    /// Three that no call keeps.
    pub(super) const SCRATCH: [&str; 3] = ["rax", "rcx", "r11"];
    pub(super) const SAVED: [&str; 6] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];
    /// `DW_OP_breg` of the stack pointer.
    pub(super) const BREG_SP: &str = "0x77";
}

#[cfg(target_arch = "x86")]
mod target {
    macro_rules! program {
        ($name:literal) => {
            include_str!(concat!("walks/i686/", $name))
        };
    }
    pub(super) use program;

    pub(super) const SP: &str = "esp";
    pub(super) const FP: &str = "ebp";
    /// What `g0` is given is in it, from `g0` on.
    pub(super) const GIVEN: &str = "ecx";
    pub(super) const TAKES: &str = "mov 4(%esp), %ecx";
    /// Three that no call keeps.
    pub(super) const SCRATCH: [&str; 3] = ["eax", "ecx", "edx"];
    pub(super) const SAVED: [&str; 4] = ["ebx", "ebp", "esi", "edi"];
    /// `DW_OP_breg` of the stack pointer.
    pub(super) const BREG_SP: &str = "0x74";
}

use target::{BREG_SP, FP, GIVEN, SAVED, SCRATCH, SP, TAKES, program};

/// Bytes of a word.
const WORD: u64 = size_of::<usize>() as u64;

#[test]
fn a_register_behind_an_expression_is_walked() {
    let directory = Directory::new("expression");
    directory.write("a.s", program!("register_behind_expression.s"));
    let Some(library) = directory.load(&["a.s"]) else { return };
    run("register behind expression", &library, "f", 2);
}

#[test]
fn states_remembered_in_any_depth_are_walked() {
    let directory = Directory::new("states");
    directory.write("a.s", program!("states.s"));
    let Some(library) = directory.load(&["a.s"]) else { return };
    for entry in ["f", "f2", "f3", "f4"] {
        run("states", &library, entry, 1);
    }
}

#[test]
fn functions_beside_entries_of_no_bytes_are_walked() {
    let directory = Directory::new("empty");
    directory.write("a.s", program!("empty_entries.s"));
    for linker in ["bfd", "lld", "gold"] {
        let option = format!("-fuse-ld={linker}");
        let Some(library) = directory.load_if_built(&["a.s", &option]) else { continue };
        for entry in ["real", "real2", "real3"] {
            run("entries of no bytes", &library, entry, 1);
        }
    }
}

#[test]
fn walks_behind_signals_take_no_stale_register() {
    let directory = Directory::new("signals");
    directory.write("signals.c", include_str!("walks/signals.c"));
    directory.write("lazy.c", include_str!("walks/lazy.c"));
    if !directory.run("cc", &["-O1", "-fPIC", "-shared", "-o", "liblazy.so", "lazy.c"]) {
        return;
    }
    let flags = ["-O1", "-Wl,-z,lazy", "signals.c", "-L.", "-llazy", "-Wl,-rpath,$ORIGIN"];
    let Some(library) = directory.load(&flags) else { return };
    run("signals", &library, "run", 2);
}

thread_local! {
    /// The function that switches stacks, and the ends of the stacks that it switches to.
    static SWITCH: Cell<(usize, [usize; 2])> = const { Cell::new((0, [0; 2])) };
}

/// Calls `function` on the stack below `end`.
fn switch_to(end: usize, function: extern "C" fn()) {
    // SAFETY: the stored program's function, of this type.
    let switch = unsafe {
        std::mem::transmute::<usize, extern "C" fn(usize, extern "C" fn())>(SWITCH.get().0)
    };
    switch(end, function);
}

/// Looks from a stack below this one and from one above it.
extern "C" fn look_from_both() {
    look();
    SWITCH.get().1.into_iter().for_each(|end| switch_to(end, look));
}

#[test]
fn a_switch_by_frame_pointer_to_a_stack_above_or_below_is_walked() {
    let directory = Directory::new("stacks");
    directory.write("a.c", include_str!("walks/stacks.c"));
    let Some(library) = directory.load(&["a.c"]) else { return };
    const SIZE: usize = 1 << 20;
    let stacks = vec![0_u128; 3 * SIZE / 16];
    let end = |i: usize| stacks.as_ptr() as usize + (i + 1) * SIZE;
    SWITCH.set((library.address("switch_stack"), [end(0), end(2)]));
    LABEL.set("switch of stacks");
    LOOKS.set(0);
    switch_to(end(1), look_from_both);
    assert_eq!(LOOKS.get(), 3);
}

#[test]
fn code_that_only_debug_frame_describes_is_walked_in_this_process() {
    let directory = Directory::new("debug_frame");
    directory.write("a.c", include_str!("walks/debug_frame.c"));
    let flags = ["-g", "-O1", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "a.c"];
    let Some(library) = directory.load(&flags) else { return };
    // The system's unwinder ends in front of such code.
    extern "C" fn look_through() {
        let code = Code::new();
        code.refresh_images();
        let snapshot = code.snapshot();
        let mut cache = RuleCache::new();
        let memory = this_thread::stack();
        let walk = |cache: &mut RuleCache| -> Result<usize, WalkError> {
            let context = RegisterSet::capture();
            let mut walk = Unwinder::new(&snapshot, cache, memory.clone(), (), context);
            let mut frames = 0;
            while walk.next_frame()?.is_some() {
                frames += 1;
            }
            Ok(frames)
        };
        let frames = walk(&mut cache).expect("it has CFI");
        // In a handler's walk too, once it has been read.
        code.snapshot().read_images().unwrap();
        assert_eq!(walk(&mut RuleCache::fixed(100)), Ok(frames));
        LOOKS.set(LOOKS.get() + 1);
    }
    LOOKS.set(0);
    // SAFETY: the function takes a callback.
    let outer = unsafe {
        std::mem::transmute::<usize, extern "C" fn(extern "C" fn())>(library.address("outer"))
    };
    outer(look_through);
    assert_eq!(LOOKS.get(), 1);
}

/// A sequence of numbers from a seed.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A function in the making: its text so far, and what undoes it, last first.
struct Function<'s> {
    seed: &'s mut Seed,
    text: String,
    undo: Vec<String>,
    /// From the stack pointer to the CFA; `None` once it was aligned.
    depth: Option<u64>,
    /// The register that the CFA is relative to.
    base: &'static str,
    /// Callee-saved registers that are saved, and so may have any value.
    saved: Vec<&'static str>,
}

impl Function<'_> {
    fn put(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn lower(&mut self, instruction: &str, undo: &str, bytes: u64) {
        let adjust = |up: bool| match self.base {
            SP => format!("\n.cfi_adjust_cfa_offset {}{bytes}", if up { "-" } else { "" }),
            _ => String::new(),
        };
        let (down, up) = (adjust(false), adjust(true));
        self.put(&format!("{instruction}{down}"));
        self.undo.push(format!("{undo}{up}"));
        self.depth = self.depth.map(|depth| depth + bytes);
    }

    fn step(&mut self) {
        match self.seed.below(8) {
            0 | 1 => {
                let register = SAVED[self.seed.below(SAVED.len() as u64) as usize];
                let Some(depth) = self.depth else { return };
                if self.saved.contains(&register) || register == self.base {
                    return;
                }
                self.lower(&format!("push %{register}"), &format!("pop %{register}"), WORD);
                self.put(&format!(".cfi_offset %{register}, -{}", depth + WORD));
                // Behind the `pop` the register is the caller's again.
                if let Some(undo) = self.undo.last_mut() {
                    let _ = write!(undo, "\n.cfi_restore %{register}");
                }
                let junk = 0xbad0 + self.seed.below(99);
                self.put(&format!("mov ${junk:#x}, %{register}"));
                self.saved.push(register);
            }
            2 if self.base != "memory" => {
                let bytes = WORD * (1 + self.seed.below(80));
                self.lower(&format!("sub ${bytes}, %{SP}"), &format!("add ${bytes}, %{SP}"), bytes);
            }
            3 | 4 => {
                // A frame pointer, in any register that is saved.
                if self.base != SP || self.saved.is_empty() {
                    return;
                }
                let base = self.saved[self.seed.below(self.saved.len() as u64) as usize];
                self.put(&format!("mov %{SP}, %{base}\n.cfi_def_cfa_register %{base}"));
                self.undo.push(format!("mov %{base}, %{SP}\n.cfi_def_cfa_register %{SP}"));
                self.base = base;
                if self.seed.one_in(3) {
                    let align = 16 << self.seed.below(4);
                    self.put(&format!("and $-{align}, %{SP}"));
                    self.depth = None;
                }
            }
            5 => {
                // The CFA in memory, by an expression; behind it the offset noted last counts.
                let (Some(depth), SP) = (self.depth, self.base) else { return };
                let ([scratch, ..], two) = (SCRATCH, 2 * WORD);
                self.put(&format!(
                    "lea {depth}(%{SP}), %{scratch}\nsub ${two}, %{SP}\n\
                     mov %{scratch}, {WORD}(%{SP})"
                ));
                // The row in front of the expression is for the instructions above.
                self.put(&format!(".cfi_escape 0x0f, 3, {BREG_SP}, {WORD}, 0x06"));
                if self.seed.one_in(2) {
                    self.put(&format!(".cfi_escape 0x0e, 0x{:x}", depth & 0x7f));
                    self.undo.push(format!("add ${two}, %{SP}\n.cfi_def_cfa %{SP}, {depth}"));
                } else {
                    self.undo.push(format!("add ${two}, %{SP}\n.cfi_def_cfa_register %{SP}"));
                }
                self.base = "memory";
                self.depth = None;
            }
            6 => {
                // States, nested.
                if self.base == "memory" {
                    return;
                }
                for _ in 0..1 + self.seed.below(7) {
                    self.put(".cfi_remember_state");
                    let adjust = match self.base {
                        SP => format!("\n.cfi_adjust_cfa_offset {WORD}"),
                        _ => String::new(),
                    };
                    self.put(&format!("sub ${WORD}, %{SP}{adjust}"));
                    self.undo.push(format!("add ${WORD}, %{SP}\n.cfi_restore_state"));
                    self.depth = self.depth.map(|depth| depth + WORD);
                }
            }
            _ => {
                let [one, two, three] = SCRATCH;
                let lines = [
                    format!(".cfi_undefined %{one}"),
                    format!(".cfi_same_value %{two}"),
                    ".cfi_escape 0x2e, 0x10".into(),
                    format!(".cfi_val_offset %{SP}, 0"),
                    format!(
                        "jmp 9f\n.cfi_remember_state\n.cfi_def_cfa %{three}, 1234\nnop\n\
                         .cfi_restore_state\n9:"
                    ),
                    "nop".into(),
                ];
                let line = &lines[self.seed.below(6) as usize];
                self.put(line);
            }
        }
    }
}

/// A chain of functions `g0`, `g1`, and so on. The last calls what `g0` was given.
fn chain(seed: &mut Seed, functions: usize) -> String {
    let mut text = String::from(".text\n");
    for i in 0..functions {
        let (undo, saved) = (Vec::new(), Vec::new());
        let mut function =
            Function { seed, text: String::new(), undo, depth: Some(WORD), base: SP, saved };
        for _ in 0..function.seed.below(8) {
            function.step();
        }
        let Function { text: body, undo, .. } = function;
        let body = if i == 0 { format!("{TAKES}\n{body}") } else { body };
        let _ = writeln!(text, ".globl g{i}\n.type g{i}, @function\ng{i}:\n.cfi_startproc\n{body}");
        let _ = writeln!(text, "call g{}@PLT", i + 1);
        undo.iter().rev().for_each(|undo| {
            let _ = writeln!(text, "{undo}");
        });
        let _ = writeln!(text, "ret\n.cfi_endproc\n.size g{i}, .-g{i}");
    }
    let two = 2 * WORD;
    // Aligned for compiled code, all callee-saved registers in memory.
    let _ = writeln!(
        text,
        ".globl g{functions}\n.type g{functions}, @function\ng{functions}:\n.cfi_startproc\n\
         push %{FP}\n.cfi_def_cfa_offset {two}\n.cfi_offset %{FP}, -{two}\n\
         mov %{SP}, %{FP}\n.cfi_def_cfa_register %{FP}\nand $-16, %{SP}\ncall *%{GIVEN}\n\
         leave\n.cfi_def_cfa %{SP}, {WORD}\nret\n.cfi_endproc\n\
         .size g{functions}, .-g{functions}\n.section .note.GNU-stack,\"\",@progbits"
    );
    text
}

#[test]
fn generated_chains_of_functions_are_walked() {
    let directory = Directory::new("generated");
    for seed in 0..12 {
        directory.write("a.s", &chain(&mut Seed(seed * 0x9e37_79b9 + 7), 60));
        let Some(library) = directory.load(&["-Wl,-Bsymbolic", "a.s"]) else { return };
        run("generated", &library, "g0", 1);
    }
}
