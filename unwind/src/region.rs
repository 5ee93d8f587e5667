//! A region of managed code, as registered and, after checks, as compiled.

mod error;
mod unwind_info;

use std::ops::Range;
use std::sync::Arc;

use crate::arch::{CALL_PUSHES, CALLEE_SAVED, FRAME_RECORD, WORD, return_offset};
use crate::cfi::{CfiError, FunctionRows, Section};
use crate::os_images;
use crate::rule::{Base, CfiRows, PackedRule, UnwindRule};
use crate::rule_table::RuleTable;
use crate::safepoint::Safepoint;
use crate::safepoint_table::SafepointTable;
use crate::stack_map::compact::Layout;
use crate::stack_map::map::{Location, Root, StackMap};
pub use error::RegionError;
pub use unwind_info::FunctionUnwindInfo;

/// Managed code to register: one JIT module, or one unit of ahead-of-time code.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Its name, for messages and debuggers.
    pub name: String,
    /// The address of its first byte.
    pub start: usize,
    /// Its length in bytes, less than 4 GiB.
    pub len: usize,
    /// `.eh_frame` bytes with absolute pcs, as `gimli::write` emits for absolute addresses. Empty
    /// for code of a loaded image: the image's own CFI is used then. Walks of this library need no
    /// more on any system; that of Windows does not know it, and needs `unwind_info`.
    pub eh_frame: Vec<u8>,
    /// Where that section lies in memory, if its pointers are relative to themselves, as in objects
    /// that LLVM's JITs load. 0 if all are absolute. The system's unwinder is not told of relative
    /// ones: such a JIT tells it by itself.
    pub eh_frame_address: usize,
    /// The UNWIND_INFO of its functions, by which Windows walks x86-64 code: Cranelift emits it for
    /// that target. There the system's unwinder is told of it, and passes none but functions that
    /// have it: an exception, a panic or a debugger's backtrace that comes to another one goes
    /// astray. Where `eh_frame` is empty, it also takes the place of CFI, on every system; the
    /// code is read for it at registration. Other architectures have none.
    pub unwind_info: Vec<FunctionUnwindInfo>,
    /// Its functions.
    pub functions: Vec<Function>,
    /// Its safepoints, together with `stack_maps`: one for every call.
    pub safepoints: Vec<Safepoint>,
    /// More safepoints, in the general form of LLVM's or a host's maps. Roots in registers are
    /// refused. Where a map has no CFA, the CFI says it: at registration where it computes the CFA
    /// from the stack pointer, at each walk where it does so from the frame pointer.
    pub stack_maps: Vec<StackMap>,
    /// The largest `cfa_offset` that a safepoint may have, in bytes. A region with a larger frame
    /// is refused, and so is one with a frame whose size is not known before it is walked.
    pub max_frame: Option<u32>,
    /// Which vector registers hold something when one of its functions returns. A hit of a return
    /// barrier keeps the most that any region of the [`Code`](crate::Code) needs.
    pub vectors: Vectors,
    /// What else in the process is told of it.
    pub announce: Announce,
}

/// Which vector registers hold something when a function of a region returns: a result, or what the
/// function keeps for its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Vectors {
    /// Those in which the platform's C convention has results, or which its callees keep, and of
    /// them 128 bits. No mask registers, and on x86-64 no x87 state. Cranelift's code is so, in
    /// functions of the convention `SystemV`.
    Results,
    /// The low 128 bits of the first sixteen. No mask registers. Cranelift's code is so, whatever
    /// the convention.
    Narrow,
    /// All of them.
    #[default]
    All,
}

/// What is told of a region, beside this library. By default both are; a compiler of single methods
/// does better to tell neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Debuggers, by gdb's JIT interface: names of functions, and backtraces. It takes an object
    /// file in memory for each region.
    pub debugger: bool,
    /// The system's unwinder, by `__register_frame`, or by `RtlAddFunctionTable` where that is the
    /// system's way: native exceptions and panics pass through the region's frames. In libgcc 12
    /// and older each such region makes every exception of the process slower, and takes time in
    /// proportion to their number to forget.
    pub system_unwinder: bool,
}

impl Announce {
    /// Nothing is told.
    pub const NONE: Announce = Announce { debugger: false, system_unwinder: false };
    /// Debuggers and the system's unwinder are told.
    pub const ALL: Announce = Announce { debugger: true, system_unwinder: true };
}

impl Default for Announce {
    fn default() -> Announce {
        Announce::ALL
    }
}

/// A function of managed code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its name, for debuggers.
    pub name: String,
    /// The address of its first byte.
    pub start: usize,
    /// Its length in bytes. 0: that of the entry of the region's CFI that begins where the function
    /// does.
    pub len: usize,
    /// It moves its return address, or pops more than that when it returns, as tail calls with
    /// argument areas of different size do. Its frames get no return-address barrier.
    pub moves_return_address: bool,
    /// Where its code comes from, for debuggers; `None` if that is not known.
    pub source: Option<SourceLines>,
}

/// The lines of the source that a function was compiled from, for debuggers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceLines {
    /// The path of the file.
    pub file: Arc<str>,
    /// Where the line changes: offsets from the function's first byte, ascending, and lines from 1
    /// on. Code before the first offset, and of line 0, has no line.
    pub lines: Vec<(u32, u32)>,
}

/// A region as lookups use it.
#[derive(Debug)]
pub(crate) struct CompiledRegion {
    name: String,
    range: Range<usize>,
    safepoints: SafepointTable,
    rules: RuleTable,
    /// Sorted by start.
    functions: Vec<Function>,
}

impl CompiledRegion {
    pub(crate) fn compile(region: &Region) -> Result<CompiledRegion, RegionError> {
        let &Region { start, len, .. } = region;
        let bad_range = RegionError::Range { start, len };
        let end = start.checked_add(len).ok_or(bad_range.clone())?;
        if start == 0 || len == 0 || u32::try_from(len).is_err() {
            return Err(bad_range);
        }
        let range = start as u64..end as u64;
        unwind_info::check(&(start..end), &region.unwind_info)?;
        let (rows, unpacked) = if region.eh_frame.is_empty() && os_images::holds_any(start..end) {
            os_images::functions(start..end)?
        } else if region.eh_frame.is_empty() && !region.unwind_info.is_empty() {
            unwind_info::rows(&(start..end), &region.unwind_info)
        } else {
            let mut rows = Vec::new();
            let section = match region.eh_frame_address {
                0 => Section::absolute(&region.eh_frame),
                address => Section::at(&region.eh_frame, address as u64),
            };
            let mut unpacked = CfiRows::default();
            section.functions(&mut unpacked, |function, offset| {
                let function = function?;
                let (start, end) = (function.start, function.end);
                if start < range.start || end > range.end {
                    return Err(CfiError::Outside { offset, start, end });
                }
                rows.push(function);
                Ok(())
            })?;
            (rows, unpacked)
        };
        let functions = functions(region, end, &rows)?;
        let signing = SignedCode::of(&rows);
        let rules = RuleTable::build(rows, unpacked)?;
        let safepoints = safepoints(region, &functions, &rules, &signing)?;
        Ok(CompiledRegion {
            name: region.name.clone(),
            range: start..end,
            safepoints: SafepointTable::build(start, len, &safepoints)?,
            rules,
            functions,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    #[inline]
    pub(crate) fn safepoints(&self) -> &SafepointTable {
        &self.safepoints
    }

    pub(crate) fn rule(&self, pc: usize) -> PackedRule {
        self.rules.rule(pc as u64)
    }

    /// What one of the region's rules stands for.
    pub(crate) fn resolve(&self, rule: PackedRule) -> Option<UnwindRule<'_>> {
        self.rules.resolve(rule)
    }

    /// Whether any of its code has a rule.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Name, code and `moves_return_address` of the function that holds `pc`.
    pub(crate) fn function(&self, pc: usize) -> Option<(&str, Range<usize>, bool)> {
        let function = holder(&self.functions, pc)?;
        Some((
            &function.name,
            function.start..function.start + function.len,
            function.moves_return_address,
        ))
    }
}

/// Where functions keep their return addresses signed.
struct SignedCode(Vec<FunctionRows>);

impl SignedCode {
    fn of(rows: &[FunctionRows]) -> SignedCode {
        let signs = |function: &&FunctionRows| !function.signing.is_empty();
        let bare = |function: &FunctionRows| FunctionRows {
            rows: vec![],
            signing: function.signing.clone(),
            ..*function
        };
        let mut signing: Vec<_> = rows.iter().filter(signs).map(bare).collect();
        signing.sort_unstable_by_key(|function| function.start);
        SignedCode(signing)
    }

    fn holds(&self, pc: usize) -> bool {
        let pc = pc as u64;
        let behind = self.0.partition_point(|function| function.start <= pc);
        let function = behind.checked_sub(1).map(|i| &self.0[i]);
        function.is_some_and(|function| pc < function.end && function.is_signed(pc))
    }
}

/// The function that holds `pc`, in a list sorted by start.
fn holder(functions: &[Function], pc: usize) -> Option<&Function> {
    let i = functions.partition_point(|function| function.start <= pc);
    functions.get(i.checked_sub(1)?).filter(|function| pc - function.start < function.len)
}

fn functions(
    region: &Region,
    end: usize,
    rows: &[FunctionRows],
) -> Result<Vec<Function>, RegionError> {
    // Only debuggers need the lines.
    let lean =
        |function: &Function| Function { name: function.name.clone(), source: None, ..*function };
    let mut functions: Vec<Function> = region.functions.iter().map(lean).collect();
    for function in functions.iter_mut().filter(|function| function.len == 0) {
        let entry = rows.iter().find(|rows| rows.start == function.start as u64);
        function.len = entry.map_or(0, |rows| (rows.end - rows.start) as usize);
    }
    functions.sort_by_key(|function| function.start);
    for function in &functions {
        let function_end = function.start.checked_add(function.len);
        if function.len == 0
            || function.start < region.start
            || function_end.is_none_or(|e| e > end)
        {
            return Err(RegionError::FunctionOutside {
                function: function.name.clone(),
                start: function.start,
            });
        }
    }
    for pair in functions.windows(2) {
        if pair[0].start + pair[0].len > pair[1].start {
            return Err(RegionError::FunctionsOverlap {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
            });
        }
    }
    Ok(functions)
}

/// Checks the safepoints against functions and rules, and adds what those know.
fn safepoints(
    region: &Region,
    functions: &[Function],
    rules: &RuleTable,
    signing: &SignedCode,
) -> Result<Vec<(StackMap, Layout)>, RegionError> {
    let mut checked = Vec::with_capacity(region.safepoints.len() + region.stack_maps.len());
    for safepoint in &region.safepoints {
        let &Safepoint { return_address, cfa_offset, .. } = safepoint;
        let roots =
            safepoint.slots.iter().map(|slot| Root::plain(Location::Stack(*slot as i32))).collect();
        // Offsets beyond i32 become negative here and are refused below.
        checked.push(check(
            region,
            functions,
            rules,
            signing,
            StackMap { return_address, cfa_offset: Some(cfa_offset), roots },
        )?);
    }
    for map in &region.stack_maps {
        checked.push(check(region, functions, rules, signing, map.clone())?);
    }
    checked.sort_by_key(|(map, _)| map.return_address);
    if let Some(pair) =
        checked.windows(2).find(|pair| pair[0].0.return_address == pair[1].0.return_address)
    {
        let return_address = pair[0].0.return_address;
        let function =
            holder(functions, return_address - 1).map_or_else(String::new, |f| f.name.clone());
        return Err(RegionError::SafepointTwice { function, return_address });
    }
    Ok(checked)
}

/// One safepoint, checked and completed with its CFA. Its roots become ascending offsets from the
/// stack pointer, or from the frame pointer where only that tells the CFA.
fn check(
    region: &Region,
    functions: &[Function],
    rules: &RuleTable,
    signing: &SignedCode,
    mut map: StackMap,
) -> Result<(StackMap, Layout), RegionError> {
    let return_address = map.return_address;
    // The byte before it belongs to the call.
    let call = return_address.wrapping_sub(1);
    let holder = holder(functions, call).ok_or(RegionError::SafepointOutside { return_address })?;
    let function = || holder.name.clone();
    let rule = rules.rule(call as u64);
    let (base, from_base) = rule.cfa().map_err(|why| match why {
        None => RegionError::SafepointWithoutCfi { function: function(), return_address },
        Some(why) => {
            RegionError::SafepointUnsupported { function: function(), return_address, why }
        }
    })?;
    let by_cfi = (base == Base::StackPointer).then_some(from_base as u32);
    let cfa_offset = map.cfa_offset.or(by_cfi);
    let bad_layout = || RegionError::SafepointLayout {
        function: function(),
        return_address,
        cfa_offset: map.cfa_offset,
        cfi: format!("{rule:?}"),
    };
    if let Some(limit) = region.max_frame {
        let unknown =
            || RegionError::FrameSizeUnknown { function: function(), return_address, limit };
        let frame = cfa_offset.ok_or_else(unknown)?;
        if frame > limit {
            return Err(RegionError::FrameTooLarge { function: function(), frame, limit });
        }
    }
    let saved_fp = rule.saved_fp();
    let cfa_from_fp = (base == Base::FramePointer).then_some(from_base);
    // A frame reaches down to whatever its CFI says is saved in it.
    let deepest = (0..CALLEE_SAVED.len()).map(|i| rule.saved(i)).max().unwrap_or(0);
    let fits = cfa_offset.is_none_or(|cfa_offset| {
        let cfa_offset = cfa_offset as usize;
        cfa_offset.is_multiple_of(WORD)
            && (WORD..1 << 28).contains(&cfa_offset)
            && deepest <= cfa_offset
            && cfa_from_fp.is_none_or(|from_fp| from_fp <= cfa_offset)
    }) && (saved_fp == 0 || saved_fp >= FRAME_RECORD)
        && cfa_from_fp.is_none_or(|from_fp| (1..256 * WORD).contains(&from_fp))
        && by_cfi.is_none_or(|by_cfi| Some(by_cfi) == cfa_offset)
        && !rule.is_oldest();
    if !fits {
        return Err(bad_layout());
    }
    let return_offset = return_offset(saved_fp) as i64;
    let least = deepest.max(CALL_PUSHES);
    let mut frame = FrameBounds { cfa_offset, cfa_from_fp, return_offset, least };
    let mut in_frame = |location| {
        frame.slot(location).map_err(|why| match why {
            BadSlot::NoFramePointer => bad_layout(),
            BadSlot::Register => RegionError::RegisterRoot { function: function(), return_address },
            BadSlot::At(slot) => RegionError::Slot { function: function(), return_address, slot },
        })
    };
    let mut roots = Vec::with_capacity(map.roots.len());
    for root in &map.roots {
        roots.push(Root { base: in_frame(root.base)?, derived: in_frame(root.derived)? });
    }
    let place = |location| match location {
        Location::Stack(offset) => (0, offset),
        Location::Frame(offset) => (1, offset),
        Location::Register(register) => (2, i32::from(register.0)),
    };
    roots.sort_unstable_by_key(|root| (place(root.base), place(root.derived)));
    roots.dedup();
    let least = frame.least;
    (map.cfa_offset, map.roots) = (cfa_offset, roots);
    let (moves, signed) = (holder.moves_return_address, signing.holds(call));
    if moves && signed {
        return Err(RegionError::SignedAndMoved { function: function(), return_address });
    }
    Ok((map, Layout { saved_fp, cfa_from_fp, least, moves_return_address: moves, signed }))
}

/// What is known of a frame's size.
struct FrameBounds {
    cfa_offset: Option<u32>,
    cfa_from_fp: Option<usize>,
    /// From the CFA to the return slot, in bytes.
    return_offset: i64,
    /// Where the CFA is not known: it lies at least this far from the stack pointer, or the map is
    /// wrong. Each walk tests that, and so that all slots lie in the frame.
    least: usize,
}

enum BadSlot {
    NoFramePointer,
    Register,
    /// With the offset from the pointer that the map gives, or from the stack pointer.
    At(i64),
}

impl FrameBounds {
    /// The slot, which is aligned, in the frame, and not that of the return address.
    fn slot(&mut self, location: Location) -> Result<Location, BadSlot> {
        let (word, returns) = (WORD as i64, self.return_offset);
        // Above the frame's highest slot, that of the return address apart.
        let above = if returns == -word { 2 * word } else { word };
        let from_fp = self.cfa_from_fp.map(|from_fp| from_fp as i64);
        let Some(cfa_offset) = self.cfa_offset.map(i64::from) else {
            // Bytes from the lower end of the frame, or from the word, up to the CFA.
            let needed = match (location, from_fp) {
                (Location::Stack(slot), _) if slot >= 0 && i64::from(slot) % word == 0 => {
                    i64::from(slot) + above
                }
                (Location::Frame(slot), Some(from_fp))
                    if i64::from(slot) % word == 0
                        && i64::from(slot) + above <= from_fp
                        && i64::from(slot) - from_fp != returns =>
                {
                    from_fp - i64::from(slot)
                }
                (Location::Stack(slot), _) => return Err(BadSlot::At(i64::from(slot as u32))),
                (Location::Frame(slot), Some(_)) => return Err(BadSlot::At(slot.into())),
                (Location::Frame(_), None) => return Err(BadSlot::NoFramePointer),
                (Location::Register(_), _) => return Err(BadSlot::Register),
            };
            if needed >= 1 << 28 {
                return Err(BadSlot::At(needed));
            }
            self.least = self.least.max(needed as usize);
            return Ok(location);
        };
        let slot = match location {
            Location::Stack(slot) => i64::from(slot),
            Location::Frame(slot) => {
                i64::from(slot) + cfa_offset - from_fp.ok_or(BadSlot::NoFramePointer)?
            }
            Location::Register(_) => return Err(BadSlot::Register),
        };
        let is_return_slot = slot - cfa_offset == returns;
        if slot % word != 0 || slot < 0 || slot + above > cfa_offset || is_return_slot {
            // The error shows the offset unsigned, as it was given.
            let given = matches!(location, Location::Stack(_));
            return Err(BadSlot::At(if given { i64::from(slot as u32) } else { slot }));
        }
        Ok(Location::Stack(slot as i32))
    }
}
