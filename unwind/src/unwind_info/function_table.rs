//! The table of an image's functions, and the rule for each pc by it.

use std::ops::Range;

use super::codes::{Action, CHAIN, Code, ENTRY, FunctionEntry, Info, Undoing};
use super::epilogue;
use super::error::UnwindInfoError;
use super::instructions::{self, length};
use crate::cfi::FunctionRows;
use crate::rule::{CfiRow, CfiRows, PackedRule, UnwindRule};

/// Bytes of code that are read at once.
const WINDOW: usize = 256;

/// A piece of an image.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it begins in the image.
    pub(crate) start: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    /// The bytes from `at` on, if it holds any.
    fn from(&self, at: u32) -> Option<&[u8]> {
        self.bytes.get(at.checked_sub(self.start)? as usize..).filter(|bytes| !bytes.is_empty())
    }
}

/// Where the bytes of instructions come from.
#[derive(Debug)]
pub(crate) enum CodeSource {
    Copied(Vec<Piece>),
    /// From this process. The function yields how many bytes from an address on it could read; it
    /// may be called in signal handlers.
    Live(fn(usize, &mut [u8]) -> usize),
}

/// The functions of an image.
#[derive(Debug)]
pub(crate) struct FunctionTable {
    /// The address of the image in memory.
    base: u64,
    /// Where it has code, ascending.
    code: Vec<Range<u32>>,
    /// By start.
    entries: Vec<FunctionEntry>,
    /// What holds the UNWIND_INFO.
    infos: Vec<Piece>,
    source: CodeSource,
}

/// Code that has been read, from an address in the image on.
struct Window {
    start: u32,
    len: usize,
    bytes: [u8; WINDOW],
}

/// An instruction, and what is left to do of an epilogue where it belongs to one.
struct Instruction {
    range: Range<u32>,
    epilogue: Option<Undoing>,
}

impl FunctionTable {
    pub(crate) fn new(
        base: u64,
        code: Vec<Range<u32>>,
        mut entries: Vec<FunctionEntry>,
        infos: Vec<Piece>,
        source: CodeSource,
    ) -> FunctionTable {
        entries.retain(|entry| entry.start < entry.end);
        entries.sort_unstable();
        // Where two overlap, the first counts.
        let mut covered = 0;
        entries.retain(|entry| {
            let is_first = entry.start >= covered;
            covered = covered.max(entry.end);
            is_first
        });
        FunctionTable { base, code, entries, infos, source }
    }

    /// Checks an UNWIND_INFO that needs nothing else. Its place counts as 0.
    pub(crate) fn check_alone(bytes: &[u8]) -> Result<(), UnwindInfoError> {
        let info = Info::parse(0, bytes)?;
        if !info.is_alone(bytes) {
            return Err(UnwindInfoError::NotAlone { at: 0 });
        }
        let mut frame = Undoing::new();
        frame.undo(&info, u32::MAX)?;
        frame.row(0).map(drop)
    }

    /// Bytes of entries and of UNWIND_INFO.
    pub(crate) fn bytes(&self) -> usize {
        self.infos.iter().map(|piece| piece.bytes.len()).sum::<usize>() + ENTRY * self.entries.len()
    }

    /// The rule for a pc in memory; `None` outside of the image's code. Nothing is allocated.
    pub(crate) fn rule(&self, pc: u64) -> Result<Option<UnwindRule<'_>>, UnwindInfoError> {
        let Some(at) = self.in_image(pc) else { return Ok(None) };
        let row = match self.entry(at) {
            Some(entry) => self.row(entry, at)?,
            // It calls nothing and keeps everything.
            None => Undoing::new().row(at)?,
        };
        Ok(Some(match PackedRule::pack(&row, &[]) {
            Ok(rule) => UnwindRule::packed(rule),
            Err(_) => UnwindRule::row(row, &[]),
        }))
    }

    /// All functions, at their addresses in memory. One whose information is wrong has no rows.
    pub(crate) fn functions(&self, unpacked: &mut CfiRows, mut each: impl FnMut(FunctionRows)) {
        for entry in &self.entries {
            let is_code = self.code.iter().any(|code| {
                code.start <= entry.start && entry.start < code.end && entry.end <= code.end
            });
            if !is_code {
                continue;
            }
            let mut rows = Vec::new();
            if self.rows(entry, unpacked, &mut rows).is_err() {
                rows = vec![(entry.start.into(), PackedRule::NONE)];
            }
            let (start, end) = (entry.start.into(), entry.end.into());
            each(FunctionRows { start, end, rows, signing: vec![] }.moved(self.base));
        }
    }

    /// The address in the image of one in memory, where it has code.
    fn in_image(&self, pc: u64) -> Option<u32> {
        let at = u32::try_from(pc.wrapping_sub(self.base)).ok()?;
        self.code.iter().any(|code| code.contains(&at)).then_some(at)
    }

    fn entry(&self, at: u32) -> Option<&FunctionEntry> {
        let behind = self.entries.partition_point(|entry| entry.start <= at);
        self.entries.get(behind.checked_sub(1)?).filter(|entry| at < entry.end)
    }

    fn bytes_at(&self, at: u32) -> Result<&[u8], UnwindInfoError> {
        let bytes = self.infos.iter().find_map(|piece| piece.from(at));
        bytes.ok_or(UnwindInfoError::CutOff { at })
    }

    fn info(&self, at: u32) -> Result<Info<'_>, UnwindInfoError> {
        Info::parse(at, self.bytes_at(at)?)
    }

    /// The entry that counts for one, and its information.
    fn direct(&self, entry: &FunctionEntry) -> Result<(FunctionEntry, Info<'_>), UnwindInfoError> {
        let mut direct = *entry;
        for _ in 0..CHAIN {
            if direct.info & 1 == 0 {
                return Ok((direct, self.info(direct.info)?));
            }
            let at = direct.info & !1;
            direct =
                FunctionEntry::parse(self.bytes_at(at)?).ok_or(UnwindInfoError::CutOff { at })?;
        }
        Err(UnwindInfoError::Endless { at: entry.info })
    }

    /// The row for an address that an entry covers.
    fn row(&self, entry: &FunctionEntry, at: u32) -> Result<CfiRow, UnwindInfoError> {
        let (direct, info) = self.direct(entry)?;
        let frame = match info.version {
            // Code that shares another's entry has no epilogues.
            1 if direct != *entry => None,
            1 => self.epilogue_at(entry, &info, at),
            _ => Some(self.by_marks(direct, info, at)?),
        };
        frame.map_or_else(|| self.undone(direct, info, at), Ok)?.row(info.at)
    }

    /// The frame outside of epilogues.
    fn undone(
        &self,
        entry: FunctionEntry,
        first: Info<'_>,
        at: u32,
    ) -> Result<Undoing, UnwindInfoError> {
        let (mut entry, mut info) = (entry, first);
        let mut frame = Undoing::new();
        for _ in 0..CHAIN {
            // Parts of a function lie anywhere: all of another's prologue is done in them.
            frame.undo(&info, at.wrapping_sub(entry.start))?;
            let Some(parent) = info.parent else { return Ok(frame) };
            (entry, info) = (parent, self.info(parent.info)?);
        }
        Err(UnwindInfoError::Endless { at: first.at })
    }

    /// The frame at `at`, where marks say what is an epilogue.
    fn by_marks(
        &self,
        entry: FunctionEntry,
        info: Info<'_>,
        at: u32,
    ) -> Result<Undoing, UnwindInfoError> {
        let mut size = 0;
        for (i, code) in info.codes().enumerate() {
            let Action::Epilogue(low, high) = code?.action else { break };
            // The first one has the size of all, and whether one ends where the function does.
            let from_end = match i {
                0 => {
                    size = low.into();
                    if high & 1 != 0 { size } else { 0 }
                }
                _ => u32::from(high) << 8 | u32::from(low),
            };
            if i > 0 && from_end == 0 {
                break;
            }
            let inside = at.wrapping_sub(entry.end.wrapping_sub(from_end));
            if from_end != 0 && inside < size {
                return self.in_marked(info, inside);
            }
        }
        self.undone(entry, info, at)
    }

    /// The frame so many bytes behind the beginning of an epilogue: it pops what the prologue has
    /// pushed, by instructions of one or two bytes, and all else is gone already.
    fn in_marked(&self, first: Info<'_>, inside: u32) -> Result<Undoing, UnwindInfoError> {
        let mut info = first;
        let mut left = Undoing::new();
        let is_push =
            |code: &Code| matches!(code.action, Action::Push(_) | Action::MachineFrame(_));
        for _ in 0..CHAIN {
            let (mut so_far, mut has_pushed) = (0, false);
            for code in info.codes() {
                let code = code?;
                has_pushed |= is_push(&code);
                match code.action {
                    Action::Push(register) => {
                        if so_far >= inside {
                            left.pop(register);
                        }
                        so_far += if register < 8 { 1 } else { 2 };
                    }
                    // The flags, which are popped into any register.
                    Action::Allocate(8) if has_pushed => {
                        if so_far >= inside {
                            left.free(8);
                        }
                        so_far += 1;
                    }
                    Action::MachineFrame(_) => left.machine_frame(0),
                    _ if has_pushed => {
                        return Err(UnwindInfoError::StackPointer { at: info.at });
                    }
                    _ => {}
                }
            }
            match info.parent {
                Some(parent) if !has_pushed => info = self.info(parent.info)?,
                _ => return Ok(left),
            }
        }
        Err(UnwindInfoError::Endless { at: first.at })
    }

    /// What is left to do at `at` if the instruction there is one of an epilogue.
    fn epilogue_at(&self, entry: &FunctionEntry, info: &Info<'_>, at: u32) -> Option<Undoing> {
        let mut window = Window { start: 0, len: 0, bytes: [0; WINDOW] };
        // Mostly nothing near looks like an epilogue. Then nobody needs to know where instructions
        // begin.
        let code = self.code.iter().find(|code| code.contains(&at))?;
        let start = entry.start.max(code.start);
        let nearest = at.saturating_sub(instructions::LONGEST as u32 - 1).max(start);
        let mut near = nearest..=at;
        near.find(|from| self.epilogue_from(entry, info, *from, &mut window).is_some())?;
        let mut from = start;
        loop {
            let Instruction { range, epilogue } = self.instruction(entry, info, from, &mut window);
            if range.contains(&at) {
                return epilogue;
            }
            from = range.end;
        }
    }

    /// The instruction at `from`. Where no instruction is known, each byte counts as one.
    fn instruction(
        &self,
        entry: &FunctionEntry,
        info: &Info<'_>,
        from: u32,
        window: &mut Window,
    ) -> Instruction {
        let epilogue = self.epilogue_from(entry, info, from, window);
        let length = length(self.code_at(from, window)).unwrap_or(1) as u32;
        Instruction { range: from..from.saturating_add(length), epilogue }
    }

    fn epilogue_from(
        &self,
        entry: &FunctionEntry,
        info: &Info<'_>,
        from: u32,
        window: &mut Window,
    ) -> Option<Undoing> {
        let leaves = |offset: i64| {
            let target = u32::try_from(i64::from(from) + offset);
            target.map_or(true, |target| self.leaves(entry, info, target))
        };
        epilogue::rest(self.code_at(from, window), info.frame_register(), leaves)
    }

    /// Whether a jump to `target` leaves the function, or begins it anew.
    fn leaves(&self, entry: &FunctionEntry, info: &Info<'_>, target: u32) -> bool {
        if (entry.start..entry.end).contains(&target) {
            return target == entry.start && info.parent.is_none();
        }
        let other = self.entry(target).and_then(|other| self.primary(other));
        match (self.primary(entry), other) {
            (Some(own), Some(other)) => own.start != other.start || target == own.start,
            _ => true,
        }
    }

    /// The entry of the function that an entry is a part of.
    fn primary(&self, entry: &FunctionEntry) -> Option<FunctionEntry> {
        let (mut entry, mut info) = self.direct(entry).ok()?;
        for _ in 0..CHAIN {
            let Some(parent) = info.parent else { return Some(entry) };
            (entry, info) = (parent, self.info(parent.info).ok()?);
        }
        None
    }

    /// The code from `at` on: all of an epilogue and of an instruction, unless the image ends.
    fn code_at<'c>(&'c self, at: u32, window: &'c mut Window) -> &'c [u8] {
        const ENOUGH: usize = epilogue::LONGEST;
        let read = match &self.source {
            CodeSource::Copied(pieces) => {
                return pieces.iter().find_map(|piece| piece.from(at)).unwrap_or(&[]);
            }
            CodeSource::Live(read) => read,
        };
        let inside = at.wrapping_sub(window.start) as usize;
        if inside.saturating_add(ENOUGH) > window.len {
            let end = self.code.iter().find(|code| code.contains(&at)).map_or(at, |code| code.end);
            let len = ((end - at) as usize).min(WINDOW);
            let address = self.base.wrapping_add(at.into()) as usize;
            (window.start, window.len) = (at, read(address, &mut window.bytes[..len]));
        }
        window.bytes.get(at.wrapping_sub(window.start) as usize..window.len).unwrap_or(&[])
    }

    /// The rows of a function, at addresses in the image.
    fn rows(
        &self,
        entry: &FunctionEntry,
        unpacked: &mut CfiRows,
        rows: &mut Vec<(u64, PackedRule)>,
    ) -> Result<(), UnwindInfoError> {
        let mut push = |at: u32, row: &CfiRow| {
            let rule = PackedRule::pack(row, &[])
                .unwrap_or_else(|why| PackedRule::row(why, unpacked.add(row, &[])));
            if rows.last().is_none_or(|last| last.1 != rule) {
                rows.push((at.into(), rule));
            }
        };
        let (direct, info) = self.direct(entry)?;
        if info.version == 2 || direct != *entry {
            for at in entry.start..entry.end {
                push(at, &self.row(entry, at)?);
            }
            return Ok(());
        }
        let offsets = info.codes().map(|code| code.map(|code| u32::from(code.offset)));
        let prologue = offsets.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
        let body = entry.start.saturating_add(prologue);
        let undone = |at: u32| self.undone(direct, info, at)?.row(info.at);
        let of_body = undone(body)?;
        let mut window = Window { start: 0, len: 0, bytes: [0; WINDOW] };
        let mut from = entry.start;
        while from < entry.end {
            let found = self.instruction(&direct, &info, from, &mut window);
            from = found.range.end;
            match found.epilogue {
                Some(left) => push(found.range.start, &left.row(info.at)?),
                None if found.range.start >= body => push(found.range.start, &of_body),
                None => {
                    for at in found.range {
                        push(at, &undone(at)?);
                    }
                }
            }
        }
        Ok(())
    }
}
