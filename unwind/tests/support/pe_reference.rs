//! What becomes of a frame of an image in Microsoft's format, as `RtlVirtualUnwind` is documented
//! to find it, by other readers than the library's: goblin for UNWIND_INFO, iced for instructions.
#![allow(dead_code, reason = "each user takes its part")]

use std::ops::Range;

use goblin::pe::PE;
use goblin::pe::exception::{ExceptionData, RuntimeFunction, UnwindInfo, UnwindOperation};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use stackmark_unwind::{Memory, Recovered, RegisterSet, UnwindRule};

/// The stack pointer among the general registers, as instructions number them.
const RSP: usize = 4;
/// The registers that functions keep.
pub(crate) const KEPT: [usize; 8] = [3, 5, 6, 7, 12, 13, 14, 15];
/// The DWARF number of each general register.
pub(crate) const DWARF: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

/// A memory that holds something at every address.
pub(crate) struct Everywhere;

impl Memory for Everywhere {
    fn read(&self, address: usize) -> Option<usize> {
        Some(memory(address as u64) as usize)
    }
}

fn memory(address: u64) -> u64 {
    let word = (address ^ address >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^ word >> 31
}

/// An image that was read.
pub(crate) struct Reference<'d> {
    bytes: &'d [u8],
    pe: PE<'d>,
    pub(crate) functions: Vec<RuntimeFunction>,
}

/// What is known of a frame's caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Where the return address lies.
    pub(crate) return_address: u64,
    /// The stack pointer, or where it lies.
    pub(crate) sp: Result<u64, u64>,
    /// Where each register lies, if it was saved.
    pub(crate) saved: [Option<u64>; 16],
}

/// A frame, while it is undone.
struct Context<'m> {
    memory: &'m dyn Fn(u64) -> u64,
    values: [u64; 16],
    saved: [Option<u64>; 16],
}

impl Context<'_> {
    fn restore(&mut self, register: usize, at: u64) {
        self.saved[register] = Some(at);
        self.values[register] = (self.memory)(at);
    }

    fn pop(&mut self, register: usize) {
        let at = self.values[RSP];
        self.restore(register, at);
        self.values[RSP] = at.wrapping_add(8);
    }

    fn returned(self) -> Caller {
        let at = self.values[RSP];
        Caller { return_address: at, sp: Ok(at.wrapping_add(8)), saved: self.saved }
    }
}

impl<'d> Reference<'d> {
    pub(crate) fn read(bytes: &'d [u8]) -> Result<Reference<'d>, Box<dyn std::error::Error>> {
        let pe = PE::parse(bytes)?;
        let functions = match &pe.exception_data {
            Some(data) => data.functions().collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Reference { bytes, pe, functions })
    }

    /// The address that the file names for the image.
    pub(crate) fn base(&self) -> u64 {
        self.pe.image_base
    }

    fn data(&self) -> &ExceptionData<'d> {
        self.pe.exception_data.as_ref().expect("it has functions")
    }

    fn info(&self, function: RuntimeFunction) -> UnwindInfo<'d> {
        self.data().get_unwind_info(function, &self.pe.sections).expect("well formed")
    }

    /// The bytes of a range of code.
    fn code(&self, range: Range<u32>) -> &'d [u8] {
        let section = self.pe.sections.iter().find(|section| {
            (section.virtual_address..section.virtual_address + section.virtual_size)
                .contains(&range.start)
        });
        let Some(section) = section else { return &[] };
        let end = section.pointer_to_raw_data + section.size_of_raw_data;
        let at = section.pointer_to_raw_data + (range.start - section.virtual_address);
        let end = (at + (range.end - range.start)).min(end);
        self.bytes.get(at as usize..end as usize).unwrap_or(&[])
    }

    /// The addresses in the image of a function's instructions.
    pub(crate) fn instructions(&self, function: &RuntimeFunction) -> Vec<u32> {
        let range = function.begin_address..function.end_address;
        let mut decoder = Decoder::with_ip(
            64,
            self.code(range.clone()),
            range.start.into(),
            DecoderOptions::NONE,
        );
        let mut found = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break;
            }
            found.push(instruction.ip() as u32);
        }
        found
    }

    fn primary(&self, mut function: RuntimeFunction) -> RuntimeFunction {
        while let Some(parent) = self.info(function).chained_info {
            function = parent;
        }
        function
    }

    fn holder(&self, target: u64) -> Option<RuntimeFunction> {
        let target = u32::try_from(target).ok()?;
        self.functions
            .iter()
            .copied()
            .find(|other| (other.begin_address..other.end_address).contains(&target))
    }

    fn leaves(&self, function: RuntimeFunction, target: u64) -> bool {
        let range = u64::from(function.begin_address)..u64::from(function.end_address);
        if range.contains(&target) {
            return target == range.start && self.info(function).chained_info.is_none();
        }
        let primary = self.primary(function);
        let other = self.holder(target).map(|other| self.primary(other));
        other.is_none_or(|other| {
            other.begin_address != primary.begin_address || target == primary.begin_address.into()
        })
    }

    /// What an epilogue that goes on at `at` yields; `None` if there is none.
    fn epilogue(
        &self,
        function: RuntimeFunction,
        frame_register: usize,
        at: u32,
        context: &Context<'_>,
    ) -> Option<Caller> {
        let mut context = Context { memory: context.memory, ..*context };
        let code = self.code(at..at + 64);
        let mut decoder = Decoder::with_ip(64, code, at.into(), DecoderOptions::NONE);
        let mut instruction = decoder.decode();
        let general = |register: Register| register as usize - Register::RAX as usize;
        let is_sp =
            |i: &Instruction| i.op0_kind() == OpKind::Register && i.op0_register() == Register::RSP;
        // Not the forms with superfluous prefixes, which nobody takes for those of an epilogue.
        let begins = &code[..2.min(code.len())];
        match instruction.code() {
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32
                if is_sp(&instruction) && matches!(begins, [0x48, 0x81 | 0x83]) =>
            {
                let by = instruction.immediate(1);
                context.values[RSP] = context.values[RSP].wrapping_add(by);
                instruction = decoder.decode();
            }
            Code::Lea_r64_m
                if is_sp(&instruction)
                    && matches!(begins, [0x48 | 0x49, 0x8d])
                    && instruction.memory_index() == Register::None
                    && instruction.memory_displ_size() != 0
                    && instruction.memory_base() != Register::None
                    && instruction.memory_base() != Register::RIP
                    && general(instruction.memory_base()) == frame_register
                    && frame_register != 0 =>
            {
                context.values[RSP] = context.values[frame_register]
                    .wrapping_add(instruction.memory_displacement64());
                instruction = decoder.decode();
            }
            _ => {}
        }
        while instruction.code() == Code::Pop_r64 {
            context.pop(general(instruction.op0_register()));
            instruction = decoder.decode();
        }
        let first = code.get(instruction.ip() as usize - at as usize..)?;
        let has_wide_prefix = matches!(first, [0x48..=0x4f, 0xff, ..]);
        let ends = match instruction.code() {
            Code::Retnq | Code::Retnq_imm16 => {
                matches!(first, [0xc2 | 0xc3, ..] | [0xf2, 0xc2 | 0xc3, ..] | [0xf3, 0xc3, ..])
            }
            Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
                matches!(first, [0xeb | 0xe9, ..] | [0xf2, 0xeb | 0xe9, ..])
                    && self.leaves(function, instruction.near_branch64() & 0xffff_ffff)
            }
            Code::Jmp_rm64 => {
                matches!(first, [0xff, 0x25, ..] | [0xf2, 0xff, 0x25, ..]) || has_wide_prefix
            }
            _ => false,
        };
        ends.then(|| context.returned())
    }

    /// The caller of a frame of `function` that stands at the instruction `at`, and has these
    /// general registers.
    pub(crate) fn caller(
        &self,
        function: RuntimeFunction,
        at: u32,
        values: [u64; 16],
        memory: &dyn Fn(u64) -> u64,
    ) -> Caller {
        let mut context = Context { memory, values, saved: [None; 16] };
        let info = self.info(function);
        assert_eq!(info.version, 1, "images at hand have version 1");
        let frame = usize::from(info.frame_register.0);
        if let Some(caller) = self.epilogue(function, frame, at, &context) {
            return caller;
        }
        let by_frame = values[frame].wrapping_sub(info.frame_register_offset.into());
        let offset = at - function.begin_address;
        let mut base = values[RSP];
        let is_set = |code: &goblin::pe::exception::UnwindCode| {
            code.operation == UnwindOperation::SetFPRegister && offset >= code.code_offset.into()
        };
        if frame != 0
            && (offset >= info.size_of_prolog.into()
                || info.chained_info.is_some()
                || info.unwind_codes().flatten().any(|code| is_set(&code)))
        {
            base = by_frame;
        }
        let mut function = function;
        loop {
            let info = self.info(function);
            let offset = at.wrapping_sub(function.begin_address);
            for code in info.unwind_codes() {
                let code = code.expect("well formed");
                if offset < code.code_offset.into() {
                    continue;
                }
                match code.operation {
                    UnwindOperation::PushNonVolatile(register) => context.pop(register.0.into()),
                    UnwindOperation::Alloc(bytes) => {
                        context.values[RSP] = context.values[RSP].wrapping_add(bytes.into());
                    }
                    UnwindOperation::SetFPRegister => {
                        let register = usize::from(info.frame_register.0);
                        let above = u64::from(info.frame_register_offset);
                        context.values[RSP] = context.values[register].wrapping_sub(above);
                    }
                    UnwindOperation::SaveNonVolatile(register, offset) => {
                        use goblin::pe::exception::StackFrameOffset::{FP, RSP};
                        let (RSP(offset) | FP(offset)) = offset;
                        context.restore(register.0.into(), base.wrapping_add(offset.into()));
                    }
                    UnwindOperation::PushMachineFrame(has_error) => {
                        let at = context.values[RSP].wrapping_add(if has_error { 8 } else { 0 });
                        return Caller {
                            return_address: at,
                            sp: Err(at.wrapping_add(24)),
                            saved: context.saved,
                        };
                    }
                    _ => {}
                }
            }
            match info.chained_info {
                Some(parent) => function = parent,
                None => return context.returned(),
            }
        }
    }

    /// The frame register, and how far below it the stack pointer lies, where registers have been
    /// pushed since it was set. The system takes them from the stack pointer then, and a rule from
    /// the CFA: they agree as long as the function leaves the stack pointer there.
    fn pushed_below_frame(&self, function: RuntimeFunction, at: u32) -> Option<(usize, u64)> {
        let info = self.info(function);
        let (mut pushed, mut has_pushed) = (0, false);
        for code in info.unwind_codes().flatten() {
            if at - function.begin_address < code.code_offset.into() {
                continue;
            }
            match code.operation {
                UnwindOperation::PushNonVolatile(_) => (pushed, has_pushed) = (pushed + 8, true),
                UnwindOperation::Alloc(bytes) => pushed += u64::from(bytes),
                UnwindOperation::SetFPRegister if has_pushed => {
                    let above = u64::from(info.frame_register_offset);
                    return Some((info.frame_register.0.into(), pushed + above));
                }
                _ => {}
            }
        }
        None
    }

    /// Whether a rule finds the callers that this reader finds for frames that stand at the
    /// instruction `at`.
    pub(crate) fn agrees(&self, function: RuntimeFunction, at: u32, rule: &UnwindRule<'_>) -> bool {
        let seed = u64::from(at);
        [seed, !seed].into_iter().all(|seed| {
            let mut values = std::array::from_fn(|i| memory(seed ^ (i as u64) << 33) >> 20 & !7);
            if let Some((frame, below)) = self.pushed_below_frame(function, at) {
                values[RSP] = values[frame].wrapping_sub(below);
            }
            let expected = self.caller(function, at, values, &memory);
            finds(rule, &values, &expected)
        })
    }
}

/// Whether a rule finds this caller for a frame with these general registers.
fn finds(rule: &UnwindRule<'_>, values: &[u64; 16], expected: &Caller) -> bool {
    let mut context = RegisterSet::unknown();
    for (number, value) in DWARF.iter().zip(values) {
        context.set(gimli::Register(*number), *value as usize);
    }
    let Ok(recovery) = rule.evaluate(&context, &Everywhere) else { return false };
    let of = |number: u16| recovery.register(gimli::Register(number));
    let at = |address: u64| Recovered::At(address as usize);
    of(16) == at(expected.return_address)
        && of(7) == expected.sp.map_or_else(at, |sp| Recovered::Value(sp as usize))
        && KEPT.into_iter().all(|number| match expected.saved[number] {
            Some(address) => of(DWARF[number]) == at(address),
            // By the convention of this system it may be unknown.
            None => matches!(of(DWARF[number]), Recovered::Same | Recovered::Unknown),
        })
}
