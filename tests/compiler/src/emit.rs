//! From a function's blocks to bytes, safepoints and CFI.

use gimli::write::CallFrameInstruction;

use crate::encoder::{Emitted, Encoder, Frame, Machine, Reg};
use crate::ir::{Arithmetic, Block, Body, Callee, End, FuncId, Kind, Op, Value};
use crate::live::{Liveness, Set, liveness};

/// The code of one function, with offsets from its start.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cfi: Vec<(u32, CallFrameInstruction)>,
    /// From the stack pointer to the CFA, behind the prologue.
    pub(crate) frame: u32,
    /// Return addresses, and the slots from the stack pointer that are roots there.
    pub(crate) safepoints: Vec<(u32, Vec<u32>)>,
    /// Return addresses, and landing pads.
    pub(crate) landing_pads: Vec<(u32, u32)>,
    /// Where calls of functions are to be patched.
    pub(crate) calls: Vec<(usize, FuncId)>,
    /// See [`Encoder::unwind_info`].
    pub(crate) unwind_info: Option<Vec<u8>>,
}

/// Where code is made.
struct Maker<'b> {
    encoder: &'b dyn Encoder,
    machine: &'static Machine,
    body: &'b Body,
    live: Liveness,
    frame: Frame,
    /// Where the values' words begin, from the stack pointer.
    values: u32,
    /// Where each slot is.
    slots: Vec<u32>,
    /// The words of slots that are in every map.
    mapped: Vec<u32>,
    out: Emitted,
    starts: Vec<usize>,
    branches: Vec<(usize, Block)>,
    safepoints: Vec<(u32, Vec<u32>)>,
    landing_pads: Vec<(u32, Block)>,
    calls: Vec<(usize, FuncId)>,
}

/// # Panics
/// If the function is not whole.
pub(crate) fn emit(encoder: &dyn Encoder, name: &str, body: &Body) -> Code {
    let machine = encoder.machine();
    let kept = |value: usize| body.values[value].kept.filter(|at| *at < machine.saved.len());
    let live = liveness(name, body, |value| kept(value).is_some());
    let outgoing = body.blocks.iter().flat_map(|block| &block.ops);
    let outgoing = outgoing.map(|op| if let Op::Call { args, .. } = op { args.len() } else { 0 });
    let outgoing = outgoing.max().unwrap_or(0).saturating_sub(machine.arguments) as u32;
    let values = machine.shadow + outgoing * machine.word;
    let mut at = values + live.count * machine.word;
    let (mut slots, mut mapped) = (vec![], vec![]);
    for slot in &body.slots {
        slots.push(at);
        mapped.extend(slot.references.iter().map(|word| at + word * machine.word));
        at += slot.words * machine.word;
    }
    let saved = match body.switches {
        true => machine.saved.len(),
        false => (0..body.values.len()).filter_map(kept).max().map_or(0, |last| last + 1),
    };
    let vectors = body.switches && !machine.vectors.is_empty();
    let above = machine.record
        + machine.word * saved as u32
        + if vectors { 8 * machine.vectors.len() as u32 } else { 0 };
    let bytes = (at + above).next_multiple_of(machine.alignment);
    let mut maker = Maker {
        encoder,
        machine,
        body,
        live,
        frame: Frame { bytes, saved, vectors },
        values,
        slots,
        mapped,
        out: Emitted::default(),
        starts: vec![usize::MAX; body.blocks.len()],
        branches: vec![],
        safepoints: vec![],
        landing_pads: vec![],
        calls: vec![],
    };
    maker.begin();
    for (index, block) in body.order.iter().enumerate() {
        maker.starts[block.0] = maker.out.bytes.len();
        maker.block(*block, body.order.get(index + 1).copied());
    }
    maker.finish()
}

impl Maker<'_> {
    /// The register that a value is in, if it is in one.
    fn register(&self, value: Value) -> Option<Reg> {
        let kept = self.body.values[value.0].kept;
        kept.filter(|at| *at < self.machine.saved.len()).map(Reg::Kept)
    }

    /// Where the frame has a value.
    fn word(&self, value: usize) -> u32 {
        self.values + self.live.words[value] * self.machine.word
    }

    fn read_into(&mut self, to: Reg, value: Value) {
        let at = self.word_or(value);
        match at {
            Ok(at) => self.encoder.load(&mut self.out, to, Reg::StackPointer, at),
            Err(from) => self.encoder.copy(&mut self.out, to, from),
        }
    }

    /// Where the frame has a value, or the register that it is in.
    fn word_or(&self, value: Value) -> Result<u32, Reg> {
        self.register(value).map_or_else(|| Ok(self.word(value.0)), Err)
    }

    /// The register that a value is in, or this one with the value.
    fn read(&mut self, scratch: Reg, value: Value) -> Reg {
        self.register(value).unwrap_or_else(|| {
            self.read_into(scratch, value);
            scratch
        })
    }

    fn write(&mut self, to: Value, from: Reg) {
        match self.word_or(to) {
            Ok(at) => self.encoder.store(&mut self.out, from, Reg::StackPointer, at),
            Err(to) => self.encoder.copy(&mut self.out, to, from),
        }
    }

    fn constant(&mut self, to: Reg, value: usize) {
        // A word of this machine has all bits of a word of one that has fewer.
        let bits = value as u64 & (u64::MAX >> (64 - 8 * self.machine.word));
        self.encoder.constant(&mut self.out, to, bits as usize);
    }

    fn begin(&mut self) {
        self.encoder.prologue(&mut self.out, &self.frame);
        for (index, param) in self.body.params.iter().enumerate() {
            let from = if index < self.machine.arguments {
                Reg::Argument(index)
            } else {
                let above = (index - self.machine.arguments) as u32 * self.machine.word;
                let at = self.machine.record + self.machine.shadow + above;
                self.encoder.load(&mut self.out, Reg::A, Reg::FramePointer, at);
                Reg::A
            };
            self.write(*param, from);
        }
        if !self.mapped.is_empty() {
            self.constant(Reg::A, 0);
        }
        for at in &self.mapped {
            self.encoder.store(&mut self.out, Reg::A, Reg::StackPointer, *at);
        }
    }

    fn block(&mut self, block: Block, next: Option<Block>) {
        let code = &self.body.blocks[block.0];
        for (index, op) in code.ops.iter().enumerate() {
            self.op(op, (block, index));
        }
        match code.end.expect("each block ends") {
            End::Jump(to) => self.go_on(to, next),
            End::Branch { test, words: [a, b], then, otherwise } => {
                let (a, b) = (self.read(Reg::A, a), self.read(Reg::B, b));
                self.encoder.compare(&mut self.out, a, b);
                let at = self.encoder.branch(&mut self.out, test);
                self.branches.push((at, then));
                self.go_on(otherwise, next);
            }
            End::Return(value) => {
                self.read_into(Reg::Result, value);
                self.encoder.epilogue(&mut self.out, &self.frame);
            }
        }
    }

    fn go_on(&mut self, to: Block, next: Option<Block>) {
        if Some(to) != next {
            let at = self.encoder.jump(&mut self.out);
            self.branches.push((at, to));
        }
    }

    fn op(&mut self, op: &Op, at: (Block, usize)) {
        let (encoder, word) = (self.encoder, self.machine.word);
        match *op {
            Op::Constant(to, value) => {
                self.constant(Reg::A, value);
                self.write(to, Reg::A);
            }
            Op::Copy(to, from) => {
                let from = self.read(Reg::A, from);
                self.write(to, from);
            }
            Op::Arithmetic(what, to, a, b) => {
                self.read_into(Reg::A, a);
                let b = self.read(Reg::B, b);
                match what {
                    Arithmetic::Add => encoder.add(&mut self.out, Reg::A, b),
                    Arithmetic::Subtract => encoder.subtract(&mut self.out, Reg::A, b),
                    Arithmetic::Multiply => encoder.multiply(&mut self.out, Reg::A, b),
                }
                self.write(to, Reg::A);
            }
            Op::Load(to, base, words) => {
                let base = self.read(Reg::A, base);
                encoder.load(&mut self.out, Reg::A, base, words * word);
                self.write(to, Reg::A);
            }
            Op::Store(from, base, words) => {
                let (from, base) = (self.read(Reg::A, from), self.read(Reg::B, base));
                encoder.store(&mut self.out, from, base, words * word);
            }
            Op::SlotAddress(to, slot) => self.frame_address(to, self.slots[slot]),
            Op::StackPointer(to) => self.frame_address(to, 0),
            Op::Goroutine(to) => self.write(to, Reg::Goroutine),
            Op::SetGoroutine(from) => self.read_into(Reg::Goroutine, from),
            Op::Landed(first, second) => {
                self.write(first, Reg::Landed(0));
                self.write(second, Reg::Landed(1));
            }
            Op::Call { callee, ref args, result, landing } => {
                self.call(callee, args);
                let across = self.live.across[at.0.0][at.1].clone();
                self.safepoint(&across, landing);
                self.write(result, Reg::Result);
            }
        }
    }

    fn frame_address(&mut self, to: Value, at: u32) {
        self.encoder.address(&mut self.out, Reg::A, Reg::StackPointer, at);
        self.write(to, Reg::A);
    }

    fn call(&mut self, callee: Callee, args: &[Value]) {
        let registers = self.machine.arguments;
        for (index, arg) in args.iter().enumerate() {
            if let Some(stacked) = index.checked_sub(registers) {
                let from = self.read(Reg::A, *arg);
                let at = self.machine.shadow + stacked as u32 * self.machine.word;
                self.encoder.store(&mut self.out, from, Reg::StackPointer, at);
            } else {
                self.read_into(Reg::Argument(index), *arg);
            }
        }
        match callee {
            Callee::Function(function) => {
                let at = self.encoder.call(&mut self.out);
                self.calls.push((at, function));
            }
            Callee::Address(address) => {
                self.constant(Reg::Callee, address);
                self.encoder.call_at(&mut self.out, Reg::Callee);
            }
        }
    }

    /// A call returns here, over which these values are alive.
    fn safepoint(&mut self, across: &Set, landing: Option<Block>) {
        let at = self.out.bytes.len() as u32;
        let reference = |value: &&usize| self.body.values[**value].kind == Kind::Reference;
        let values = across.iter().filter(reference).map(|value| self.word(*value));
        let mut slots: Vec<u32> = values.chain(self.mapped.iter().copied()).collect();
        slots.sort_unstable();
        self.safepoints.push((at, slots));
        self.landing_pads.extend(landing.map(|block| (at, block)));
    }

    fn finish(mut self) -> Code {
        for (at, block) in std::mem::take(&mut self.branches) {
            self.encoder.patch(&mut self.out.bytes, at, self.starts[block.0]);
        }
        let Emitted { bytes, mut cfi } = self.out;
        // What is true behind the function's end is of no use.
        cfi.retain(|(at, _)| (*at as usize) < bytes.len());
        let pad = |(at, block): &(u32, Block)| (*at, self.starts[block.0] as u32);
        let landing_pads = self.landing_pads.iter().map(pad).collect();
        Code {
            bytes,
            cfi,
            frame: self.frame.bytes,
            safepoints: self.safepoints,
            landing_pads,
            calls: self.calls,
            unwind_info: self.encoder.unwind_info(&self.frame),
        }
    }
}
