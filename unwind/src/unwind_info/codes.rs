//! The codes of UNWIND_INFO, and the row that they make at a pc outside of epilogues.

use super::error::UnwindInfoError;
use super::registers::{RETURN_ADDRESS, STACK_POINTER, is_kept, register};
use crate::rule::{Cfa, CfiRow, Saved};

/// Bytes of a word, and of a slot of the stack.
const WORD: i64 = 8;
/// How many others an information may be chained to, as in Microsoft's own.
pub(super) const CHAIN: usize = 32;

const IS_CHAINED: u8 = 4;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 12;

/// An entry: a function, or a part of one. Addresses are relative to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FunctionEntry {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Where its UNWIND_INFO lies. If it is odd, there is another entry to take instead.
    pub(crate) info: u32,
}

impl FunctionEntry {
    /// The one that `bytes` begin with.
    pub(crate) fn parse(bytes: &[u8]) -> Option<FunctionEntry> {
        let (words, _) = bytes.first_chunk::<ENTRY>()?.as_chunks::<4>();
        let word = |i: usize| u32::from_le_bytes(words[i]);
        Some(FunctionEntry { start: word(0), end: word(1), info: word(2) })
    }
}

/// One UNWIND_INFO.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info<'a> {
    /// Where it begins in the image.
    pub(super) at: u32,
    pub(super) version: u8,
    flags: u8,
    prologue: u8,
    /// The number of the frame register, and how far above the frame's base it points, in bytes.
    frame: Option<(u8, i64)>,
    codes: &'a [[u8; 2]],
    /// What it is chained to.
    pub(super) parent: Option<FunctionEntry>,
}

/// What a code says that the prologue has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It has pushed the register with this number.
    Push(u8),
    /// It has moved the stack pointer down, by so many bytes.
    Allocate(i64),
    /// It has set the frame register.
    SetFrame,
    /// It has saved the register with this number so far above the frame's base.
    Save(u8, i64),
    /// It has saved a vector register.
    SaveVector,
    /// The processor has pushed the frame of an interrupt, with this many words below it.
    MachineFrame(i64),
    /// It says where an epilogue lies: its low and high byte.
    Epilogue(u8, u8),
}

/// A code, and the offset in the function from which on it has been done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    pub(super) offset: u8,
    pub(super) action: Action,
}

impl<'a> Info<'a> {
    /// The one at `at`, which `bytes` begin with.
    pub(super) fn parse(at: u32, bytes: &'a [u8]) -> Result<Info<'a>, UnwindInfoError> {
        let cut_off = UnwindInfoError::CutOff { at };
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(cut_off)?;
        let [first, prologue, count, frame] = *head;
        let (version, flags) = (first & 7, first >> 3);
        if !matches!(version, 1 | 2) {
            return Err(UnwindInfoError::Version { at, version });
        }
        let count = usize::from(count);
        let (codes, _) = rest.as_chunks::<2>();
        let codes = codes.get(..count).ok_or(cut_off)?;
        let frame = (frame & 15 != 0).then_some((frame & 15, i64::from(frame >> 4) * 16));
        let parent = if flags & IS_CHAINED == 0 {
            None
        } else {
            let behind = rest.get(2 * (count + count % 2)..).ok_or(cut_off)?;
            Some(FunctionEntry::parse(behind).ok_or(cut_off)?)
        };
        Ok(Info { at, version, flags, prologue, frame, codes, parent })
    }

    /// Whether it is all of these bytes, names no handler, and needs no other.
    pub(super) fn is_alone(&self, bytes: &[u8]) -> bool {
        let all = 4 + 2 * self.codes.len();
        self.flags == 0 && (all..=all.next_multiple_of(4)).contains(&bytes.len())
    }

    /// Its frame register.
    pub(super) fn frame_register(&self) -> Option<u8> {
        self.frame.map(|(register, _)| register)
    }

    /// Its codes, the last thing that the prologue does first.
    pub(super) fn codes(&self) -> impl Iterator<Item = Result<Code, UnwindInfoError>> + use<'a> {
        let &Info { at, version, mut codes, .. } = self;
        std::iter::from_fn(move || {
            let (&[offset, what], rest) = codes.split_first()?;
            codes = rest;
            let code = action(at, version, [offset, what], &mut codes);
            if code.is_err() {
                codes = &[];
            }
            Some(code.map(|action| Code { offset, action }))
        })
    }
}

/// What a code says; `rest` are those behind it, of which it takes its numbers.
fn action(
    at: u32,
    version: u8,
    [offset, what]: [u8; 2],
    rest: &mut &[[u8; 2]],
) -> Result<Action, UnwindInfoError> {
    let (code, info) = (what & 15, what >> 4);
    let mut number = |size: usize| {
        let (words, behind) = rest.split_at_checked(size).ok_or(UnwindInfoError::CutOff { at })?;
        *rest = behind;
        let value = words
            .iter()
            .rev()
            .fold(0, |value, word| value << 16 | i64::from(u16::from_le_bytes(*word)));
        Ok(value)
    };
    Ok(match code {
        0 => Action::Push(info),
        1 if info == 0 => Action::Allocate(number(1)? * WORD),
        1 if info == 1 => Action::Allocate(number(2)?),
        2 => Action::Allocate((i64::from(info) + 1) * WORD),
        3 => Action::SetFrame,
        4 => Action::Save(info, number(1)? * WORD),
        5 => Action::Save(info, number(2)?),
        6 if version == 2 => Action::Epilogue(offset, info),
        8 => number(1).map(|_| Action::SaveVector)?,
        9 => number(2).map(|_| Action::SaveVector)?,
        10 if info <= 1 => Action::MachineFrame(info.into()),
        _ => return Err(UnwindInfoError::Code { at, code }),
    })
}

/// What an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The stack pointer at the pc.
    Stack,
    /// The frame register.
    Frame(u8),
}

/// A frame, while what its prologue has done is undone, or its epilogue goes on.
#[derive(Debug)]
pub(super) struct Undoing {
    /// Where the stack pointer would be by now.
    base: Base,
    at: i64,
    /// The offset from the frame register that is the stack pointer at the pc: what the prologue
    /// has left between them.
    stack_in_frame: Option<i64>,
    /// Where registers were saved.
    saved: [Option<(Base, i64)>; 16],
    /// The processor's frame lies there.
    machine_frame: bool,
}

impl Undoing {
    /// Nothing is undone.
    pub(super) fn new() -> Undoing {
        let saved = [None; 16];
        Undoing { base: Base::Stack, at: 0, stack_in_frame: None, saved, machine_frame: false }
    }

    /// The register lies on top of the stack.
    pub(super) fn pop(&mut self, register: u8) {
        self.saved[usize::from(register & 15)] = Some((self.base, self.at));
        self.free(WORD);
    }

    /// The stack is so many bytes smaller.
    pub(super) fn free(&mut self, bytes: i64) {
        self.at += bytes;
    }

    /// The stack pointer lies so far from a register.
    pub(super) fn count_from(&mut self, register: u8, offset: i64) {
        if self.base == Base::Stack {
            self.stack_in_frame = Some(offset - self.at);
        }
        (self.base, self.at) = (Base::Frame(register), offset);
    }

    /// The processor's frame lies on top of the stack, behind so many words.
    pub(super) fn machine_frame(&mut self, words: i64) {
        self.free(words * WORD);
        self.machine_frame = true;
    }

    /// The row. `at` names the information in errors.
    pub(super) fn row(&self, at: u32) -> Result<CfiRow, UnwindInfoError> {
        let mut row = CfiRow::unspecified(self.machine_frame);
        let size = if self.machine_frame { 5 * WORD } else { WORD };
        let cfa = self.at + size;
        let of_base = match self.base {
            Base::Stack => STACK_POINTER,
            Base::Frame(register) => register,
        };
        row.cfa = Cfa::Register(register(of_base), cfa);
        for (number, saved) in (0_u8..).zip(&self.saved) {
            let Some((base, offset)) = *saved else { continue };
            if number == STACK_POINTER {
                return Err(UnwindInfoError::StackPointer { at });
            }
            if !is_kept(number) {
                // What a pop makes of it is of no use to the caller.
                continue;
            }
            let offset = match (base, self.base) {
                (base, now) if base == now => offset,
                (Base::Stack, Base::Frame(_)) => {
                    offset + self.stack_in_frame.ok_or(UnwindInfoError::FrameRegister { at })?
                }
                _ => return Err(UnwindInfoError::FrameRegister { at }),
            };
            row.set(register(number), Saved::Offset(offset - cfa));
        }
        row.set(RETURN_ADDRESS, Saved::Offset(-size));
        if self.machine_frame {
            row.set(register(STACK_POINTER), Saved::Offset(3 * WORD - size));
        }
        Ok(row)
    }

    /// Undoes what the prologue has done at the offset `pc` of the function: the codes of `info`
    /// whose time has come.
    pub(super) fn undo(&mut self, info: &Info<'_>, pc: u32) -> Result<(), UnwindInfoError> {
        let at = info.at;
        let wrong_register = UnwindInfoError::FrameRegister { at };
        // Whether saved registers lie relative to the frame register, and not to the stack pointer.
        let mut by_frame = info.frame.is_some();
        if by_frame && pc < info.prologue.into() && info.parent.is_none() {
            let mut set = info.codes().filter_map(Result::ok);
            let set = set.find(|code| code.action == Action::SetFrame).ok_or(wrong_register)?;
            by_frame = pc >= set.offset.into();
        }
        for code in info.codes() {
            let Code { offset, action } = code?;
            if pc < offset.into() || matches!(action, Action::Epilogue(..) | Action::SaveVector) {
                continue;
            }
            if self.machine_frame {
                return Err(UnwindInfoError::StackPointer { at });
            }
            match action {
                Action::Push(register) => self.pop(register),
                Action::Allocate(bytes) => self.free(bytes),
                Action::SetFrame => {
                    let (register, above) = info.frame.ok_or(wrong_register)?;
                    if matches!(self.base, Base::Frame(known) if known != register) {
                        return Err(wrong_register);
                    }
                    self.count_from(register, -above);
                }
                Action::Save(register, offset) => {
                    let place = match info.frame {
                        Some((frame, above)) if by_frame => (Base::Frame(frame), offset - above),
                        _ => (Base::Stack, offset),
                    };
                    self.saved[usize::from(register)] = Some(place);
                }
                Action::MachineFrame(words) => self.machine_frame(words),
                Action::Epilogue(..) | Action::SaveVector => {}
            }
        }
        if self.machine_frame && info.parent.is_some() {
            return Err(UnwindInfoError::StackPointer { at });
        }
        Ok(())
    }
}
