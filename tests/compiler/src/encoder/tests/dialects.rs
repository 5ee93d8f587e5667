//! What an encoder is asked for, as a text for an assembler.

use super::{Asked, Label};
use crate::encoder::{Frame, Machine, Reg, Test};

/// An assembler, and how it is written for.
pub(super) struct Dialect {
    pub(super) prefix: &'static str,
    pub(super) options: &'static [&'static str],
    /// Its first lines.
    pub(super) begin: &'static str,
    register: fn(Reg) -> &'static str,
    /// What is written in its own way.
    own: fn(&Dialect, &Machine, &Asked) -> Option<String>,
    /// Whether it has three operands for arithmetic.
    three: bool,
    /// What stands behind instructions that have a short form.
    wide: &'static str,
    multiply: &'static str,
    /// Branches: equal, differ, below; jump, call.
    branches: [&'static str; 5],
    call_at: &'static str,
}

const X86_BRANCHES: [&str; 5] =
    ["{disp32} je", "{disp32} jne", "{disp32} jb", "{disp32} jmp", "call"];

pub(super) const AMD64: Dialect = Dialect {
    prefix: "x86_64-linux-gnu-",
    options: &[],
    begin: ".intel_syntax noprefix",
    register: |reg| match reg {
        Reg::A | Reg::Result | Reg::Landed(0) => "rax",
        Reg::B | Reg::Callee => "r11",
        Reg::Argument(index) => ["rdi", "rsi", "rdx", "rcx"][index],
        Reg::Landed(_) => "rdx",
        Reg::Goroutine => "r15",
        Reg::Kept(index) => ["rbx", "r12", "r13", "r14"][index],
        Reg::StackPointer => "rsp",
        Reg::FramePointer => "rbp",
    },
    own: x86,
    three: false,
    wide: "",
    multiply: "imul",
    branches: X86_BRANCHES,
    call_at: "call",
};

pub(super) const AMD64_WINDOWS: Dialect = Dialect {
    register: |reg| match reg {
        Reg::Argument(index) => ["rcx", "rdx", "r8", "r9"][index],
        Reg::Kept(index) => ["rbx", "r12", "r13", "r14", "rdi", "rsi"][index],
        other => (AMD64.register)(other),
    },
    ..AMD64
};

pub(super) const I686: Dialect = Dialect {
    prefix: "i686-linux-gnu-",
    register: |reg| match reg {
        Reg::A | Reg::Result | Reg::Landed(0) => "eax",
        Reg::B | Reg::Callee => "ecx",
        Reg::Argument(_) => unreachable!("arguments are on the stack"),
        Reg::Landed(_) => "edx",
        Reg::Goroutine => "edi",
        Reg::Kept(index) => ["ebx", "esi"][index],
        Reg::StackPointer => "esp",
        Reg::FramePointer => "ebp",
    },
    ..AMD64
};

pub(super) const ARM64: Dialect = Dialect {
    prefix: "aarch64-linux-gnu-",
    options: &["-march=armv8.3-a"],
    begin: "",
    register: |reg| match reg {
        Reg::A => "x9",
        Reg::B => "x10",
        Reg::Callee => "x16",
        Reg::Argument(index) | Reg::Landed(index) => ["x0", "x1", "x2", "x3"][index],
        Reg::Result => "x0",
        Reg::Goroutine => "x21",
        Reg::Kept(index) => ["x19", "x20", "x22", "x23", "x24", "x25", "x26", "x27", "x28"][index],
        Reg::StackPointer => "sp",
        Reg::FramePointer => "x29",
    },
    own: |dialect, machine, asked| arm64(dialect, machine, asked, ["", ""]),
    three: true,
    wide: "",
    multiply: "mul",
    branches: ["b.eq", "b.ne", "b.lo", "b", "bl"],
    call_at: "blr",
};

pub(super) const ARM64_SIGNS: Dialect = Dialect {
    own: |dialect, machine, asked| arm64(dialect, machine, asked, ["paciasp\n", "autiasp\n"]),
    ..ARM64
};

pub(super) const ARM: Dialect = Dialect {
    prefix: "arm-linux-gnueabihf-",
    options: &["-march=armv7-a", "-mfpu=vfpv3"],
    begin: ".syntax unified\n.arm",
    register: |reg| match reg {
        Reg::A | Reg::Callee => "r12",
        Reg::B => "lr",
        Reg::Argument(index) | Reg::Landed(index) => ["r0", "r1", "r2", "r3"][index],
        Reg::Result => "r0",
        Reg::Goroutine => "r10",
        Reg::Kept(index) => ["r4", "r5", "r6", "r7", "r8", "r9"][index],
        Reg::StackPointer => "sp",
        Reg::FramePointer => "r11",
    },
    own: arm,
    three: true,
    wide: "",
    multiply: "mul",
    branches: ["beq", "bne", "blo", "b", "bl"],
    call_at: "blx",
};

pub(super) const THUMB: Dialect = Dialect {
    begin: ".syntax unified\n.thumb",
    wide: ".w",
    branches: ["beq.w", "bne.w", "blo.w", "b.w", "bl"],
    ..ARM
};

impl Dialect {
    /// The text of what is asked for.
    pub(super) fn text(&self, machine: &Machine, asked: &Asked) -> String {
        if let Some(text) = (self.own)(self, machine, asked) {
            return text;
        }
        let (name, wide) = (self.register, self.wide);
        let arithmetic = |what: &str, to: Reg, by: Reg| match self.three {
            true => format!("{what} {0}, {0}, {1}", name(to), name(by)),
            false => format!("{what} {}, {}", name(to), name(by)),
        };
        let [equal, differ, below, jump, call] = self.branches;
        match *asked {
            Asked::Copy(to, from) => format!("mov {}, {}", name(to), name(from)),
            Asked::Load(to, base, offset) => {
                format!("ldr{wide} {}, [{}, #{offset}]", name(to), name(base))
            }
            Asked::Store(from, base, offset) => {
                format!("str{wide} {}, [{}, #{offset}]", name(from), name(base))
            }
            Asked::Address(to, base, offset) => {
                format!("add {}, {}, #{offset}", name(to), name(base))
            }
            Asked::Add(to, by) => arithmetic(&format!("add{wide}"), to, by),
            Asked::Subtract(to, by) => arithmetic(&format!("sub{wide}"), to, by),
            Asked::Multiply(to, by) => arithmetic(self.multiply, to, by),
            Asked::Compare(a, b) => format!("cmp{wide} {}, {}", name(a), name(b)),
            Asked::Branch(Test::Equal, label) => format!("{equal} {label:?}"),
            Asked::Branch(Test::Differ, label) => format!("{differ} {label:?}"),
            Asked::Branch(Test::Below, label) => format!("{below} {label:?}"),
            Asked::Jump(label) => format!("{jump} {label:?}"),
            Asked::Call(label) => format!("{call} {label:?}"),
            Asked::CallAt(callee) => format!("{} {}", self.call_at, name(callee)),
            Asked::Define(label @ (Label::Before | Label::Behind)) => format!("{label:?}:"),
            Asked::Gap(bytes) => format!(".skip {bytes}, 0"),
            _ => unreachable!("{asked:?} is written in its own way"),
        }
    }

    /// A line for each register that a frame saves: name and offset from the frame pointer.
    fn saved(
        &self,
        machine: &Machine,
        frame: &Frame,
        line: impl Fn(String, i32) -> String,
    ) -> String {
        let general = (0..frame.saved).map(|index| {
            let at = -(machine.word as i32) * (frame.saved - index) as i32;
            line((self.register)(Reg::Kept(index)).into(), at)
        });
        let vectors = (8..16).filter(|_| frame.vectors).map(|number| {
            let above = machine.word as i32 * frame.saved as i32;
            line(format!("d{number}"), -above - 8 * (16 - number))
        });
        general.chain(vectors).collect()
    }
}

fn x86(dialect: &Dialect, machine: &Machine, asked: &Asked) -> Option<String> {
    let name = dialect.register;
    let [sp, fp] = [Reg::StackPointer, Reg::FramePointer].map(name);
    Some(match *asked {
        Asked::Prologue(frame) => {
            let bytes = frame.bytes - machine.record;
            let saved =
                dialect.saved(machine, &frame, |saved, at| format!("mov [{fp} + {at}], {saved}\n"));
            format!("push {fp}\nmov {fp}, {sp}\nsub {sp}, {bytes}\n{saved}")
        }
        Asked::Epilogue(frame) => {
            let saved =
                dialect.saved(machine, &frame, |saved, at| format!("mov {saved}, [{fp} + {at}]\n"));
            let leave = match machine.word {
                8 if machine.shadow > 0 => {
                    format!("add {sp}, {}\npop {fp}", frame.bytes - machine.record)
                }
                8 => format!("mov {sp}, {fp}\npop {fp}"),
                _ => "leave".into(),
            };
            format!("{saved}{leave}\nret")
        }
        Asked::Constant(to, value) => match (name(to), u32::try_from(value)) {
            ("rax", Ok(value)) => format!("mov eax, {value}"),
            ("r11", Ok(value)) => format!("mov r11d, {value}"),
            (to, Ok(value)) => format!("mov {to}, {value}"),
            (to, Err(_)) => format!("movabs {to}, {value}"),
        },
        Asked::Address(to, base, offset) => {
            format!("lea {}, [{} + {offset}]", name(to), name(base))
        }
        Asked::Load(to, base, offset) => format!("mov {}, [{} + {offset}]", name(to), name(base)),
        Asked::Store(from, base, offset) => {
            format!("mov [{} + {offset}], {}", name(base), name(from))
        }
        _ => return None,
    })
}

fn arm64(
    dialect: &Dialect,
    machine: &Machine,
    asked: &Asked,
    [signs, checks]: [&str; 2],
) -> Option<String> {
    Some(match *asked {
        Asked::Prologue(frame) => {
            let bytes = frame.bytes - machine.record;
            let saved =
                dialect.saved(machine, &frame, |saved, at| format!("stur {saved}, [x29, #{at}]\n"));
            format!("{signs}stp x29, x30, [sp, #-16]!\nmov x29, sp\nsub sp, sp, #{bytes}\n{saved}")
        }
        Asked::Epilogue(frame) => {
            let saved =
                dialect.saved(machine, &frame, |saved, at| format!("ldur {saved}, [x29, #{at}]\n"));
            format!("{saved}mov sp, x29\nldp x29, x30, [sp], #16\n{checks}ret")
        }
        Asked::Constant(to, value) => {
            let to = (dialect.register)(to);
            let part = |at: u32| (value as u64 >> at) & 0xffff;
            let more = [16, 32, 48].into_iter().filter(|at| part(*at) != 0);
            let more = more.map(|at| format!("\nmovk {to}, #{}, lsl #{at}", part(at)));
            format!("movz {to}, #{}{}", part(0), more.collect::<String>())
        }
        _ => return None,
    })
}

fn arm(dialect: &Dialect, machine: &Machine, asked: &Asked) -> Option<String> {
    let (name, wide) = (dialect.register, dialect.wide);
    let is_thumb = !wide.is_empty();
    let is_vector = |saved: &str| saved.starts_with('d');
    Some(match *asked {
        Asked::Prologue(frame) => {
            let bytes = frame.bytes - machine.record;
            let saved = dialect.saved(machine, &frame, |saved, at| match is_vector(&saved) {
                true => format!("vstr {saved}, [r11, #{at}]\n"),
                false => format!("str{wide} {saved}, [r11, #{at}]\n"),
            });
            let less = if is_thumb { "subw" } else { "sub" };
            format!("push{wide} {{r11, lr}}\nmov r11, sp\n{less} sp, sp, #{bytes}\n{saved}")
        }
        Asked::Epilogue(frame) => {
            let saved = dialect.saved(machine, &frame, |saved, at| match is_vector(&saved) {
                true => format!("vldr {saved}, [r11, #{at}]\n"),
                false => format!("ldr{wide} {saved}, [r11, #{at}]\n"),
            });
            format!("{saved}mov sp, r11\npop{wide} {{r11, pc}}")
        }
        Asked::Constant(to, value) => {
            let (to, low, high) = (name(to), value & 0xffff, value >> 16);
            let high = if high == 0 { String::new() } else { format!("\nmovt {to}, #{high}") };
            format!("movw {to}, #{low}{high}")
        }
        Asked::Address(to, base, offset) if is_thumb => {
            format!("addw {}, {}, #{offset}", name(to), name(base))
        }
        // No immediate of nine bits.
        Asked::Address(to, base, offset @ 0xff8) => {
            let to = name(to);
            format!("movw {to}, #{offset}\nadd {to}, {}, {to}", name(base))
        }
        _ => return None,
    })
}
