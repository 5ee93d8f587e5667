//! Functions that are compiled, placed and registered together.

use gimli::write::{
    Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian};
use stackmark_stack::MAX_FRAME;
use stackmark_stack::unwind::{
    self, Code, FunctionUnwindInfo, Region, RegionId, Safepoint, Vectors,
};
use std::collections::HashMap;

use crate::emit::{self, emit};
use crate::encoder::{Encoder, Machine, Options, host};
use crate::function::{Function, RunsOn, Start};
use crate::ir::{FuncId, Kind};
use crate::memory::CodeMemory;

/// Functions begin at multiples of this.
const ALIGNMENT: usize = 16;

/// A module of functions that return one word.
#[derive(Debug)]
pub struct Compiler {
    encoder: Box<dyn Encoder>,
    runs_on: RunsOn,
    functions: Vec<Declared>,
}

#[derive(Debug)]
struct Declared {
    name: &'static str,
    params: Vec<Kind>,
    code: Option<emit::Code>,
}

/// Functions in their final place, where they stay until the process ends.
#[derive(Clone, Debug)]
pub struct Program {
    functions: Vec<(&'static str, usize)>,
    landing_pads: HashMap<usize, usize>,
    /// See [`Machine::code_bit`].
    code_bit: usize,
}

/// Functions in their final place, registered.
#[derive(Debug)]
pub struct Compiled {
    /// The functions.
    pub program: Program,
    /// The function that a goroutine begins with: `entry(goroutine, argument)`, where the argument
    /// points to `[n, object, result]`.
    pub entry: usize,
    /// What they are registered as.
    pub region: RegionId,
}

impl Compiled {
    /// The address of a function, as it is called.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn address(&self, name: &str) -> usize {
        let found = self.program.functions.iter().find(|(found, _)| *found == name);
        found.unwrap_or_else(|| panic!("no function {name}")).1
    }

    /// The landing pad of the call that returns to `return_address`, if it has one.
    pub fn landing_pad(&self, return_address: usize) -> Option<usize> {
        self.program.landing_pad(return_address)
    }
}

impl Program {
    /// The address of a function, as it is called.
    pub fn address(&self, id: FuncId) -> usize {
        self.functions[id.0].1
    }

    /// The landing pad of the call that returns to `return_address`, if it has one.
    pub fn landing_pad(&self, return_address: usize) -> Option<usize> {
        self.landing_pads.get(&(return_address & !self.code_bit)).copied()
    }
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::for_stacks(RunsOn::default())
    }
}

impl Compiler {
    /// A compiler of functions for stacks of this kind.
    pub fn for_stacks(runs_on: RunsOn) -> Compiler {
        Compiler { encoder: host(Options::default()), runs_on, functions: vec![] }
    }

    /// A compiler of functions that sign their return addresses, where the machine can.
    pub fn signing() -> Compiler {
        Compiler::with(Options { signs: true })
    }

    fn with(options: Options) -> Compiler {
        Compiler { encoder: host(options), ..Compiler::default() }
    }

    /// Declares a function that returns a plain word. Its name is for tracebacks.
    ///
    /// # Panics
    /// If there are more parameters than every machine has registers for.
    pub fn declare(&mut self, name: &'static str, params: &[Kind]) -> FuncId {
        assert!(params.len() <= 4, "{name} has {} parameters", params.len());
        self.functions.push(Declared { name, params: params.to_vec(), code: None });
        FuncId(self.functions.len() - 1)
    }

    /// Defines a declared function. `build` fills it, behind the check of the stack.
    ///
    /// # Panics
    /// If the code is wrong.
    pub fn define(&mut self, id: FuncId, start: Start, build: impl FnOnce(&mut Function)) {
        let declared = &mut self.functions[id.0];
        let mut f = Function::new(self.encoder.machine(), self.runs_on, &declared.params, start);
        build(&mut f);
        declared.code = Some(emit(&*self.encoder, declared.name, &f.body));
    }

    /// Declares and defines a function.
    ///
    /// # Panics
    /// If the code is wrong.
    pub fn function(
        &mut self,
        name: &'static str,
        params: &[Kind],
        start: Start,
        build: impl FnOnce(&mut Function),
    ) -> FuncId {
        let id = self.declare(name, params);
        self.define(id, start, build);
        id
    }

    /// Where each function begins, and the code of all.
    pub(crate) fn link(&self) -> (Vec<usize>, Vec<u8>) {
        let (mut starts, mut bytes) = (vec![], vec![]);
        for function in &self.functions {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            starts.push(bytes.len());
            bytes.extend_from_slice(&function.code().bytes);
        }
        for (function, start) in self.functions.iter().zip(&starts) {
            for (at, callee) in &function.code().calls {
                self.encoder.patch(&mut bytes, start + at, starts[callee.0]);
            }
        }
        (starts, bytes)
    }

    /// Places the functions. The region is not registered.
    ///
    /// # Panics
    /// If one is declared but not defined.
    pub fn place(self) -> (Program, Region) {
        let (starts, bytes) = self.link();
        let memory = CodeMemory::new(bytes.len());
        let machine = self.encoder.machine();
        let mut program =
            Program { functions: vec![], landing_pads: HashMap::new(), code_bit: machine.code_bit };
        let mut region = Region {
            name: "test".into(),
            start: memory.start(),
            len: bytes.len(),
            max_frame: u32::try_from(MAX_FRAME).ok(),
            vectors: Vectors::Results,
            ..Region::default()
        };
        for (function, start) in self.functions.iter().zip(&starts) {
            let (code, start) = (function.code(), memory.start() + start);
            program.functions.push((function.name, start | machine.code_bit));
            let pads = code.landing_pads.iter();
            program.landing_pads.extend(pads.map(|(at, pad)| {
                (start + *at as usize, (start + *pad as usize) | machine.code_bit)
            }));
            region.functions.push(unwind::Function {
                name: function.name.into(),
                start,
                len: code.bytes.len(),
                ..unwind::Function::default()
            });
            region.unwind_info.extend(code.unwind_info.clone().map(|bytes| FunctionUnwindInfo {
                start,
                len: code.bytes.len(),
                bytes,
            }));
            region.safepoints.extend(code.safepoints.iter().map(|(at, slots)| Safepoint {
                return_address: start + *at as usize,
                cfa_offset: code.frame,
                slots: slots.clone(),
            }));
        }
        region.eh_frame = self.eh_frame(&region);
        memory.write(&bytes, self.encoder.has_pads());
        (program, region)
    }

    fn eh_frame(&self, region: &Region) -> Vec<u8> {
        let mut table = FrameTable::default();
        let cie = table.add_cie(cie(self.encoder.machine()));
        for (function, placed) in self.functions.iter().zip(&region.functions) {
            let (start, len) = (Address::Constant(placed.start as u64), placed.len as u32);
            let mut entry = FrameDescriptionEntry::new(start, len);
            for (at, what) in &function.code().cfi {
                entry.add_instruction(*at, what.clone());
            }
            table.add_fde(cie, entry);
        }
        let mut eh_frame = EhFrame::from(EndianVec::new(LittleEndian));
        table.write_eh_frame(&mut eh_frame).expect("a short section");
        eh_frame.0.into_vec()
    }

    /// Places and registers the functions.
    ///
    /// # Panics
    /// If one is declared but not defined.
    pub fn finish(self, entry: FuncId, code: &Code) -> Compiled {
        let (program, region) = self.place();
        let region = code.register(region).expect("correct maps");
        Compiled { entry: program.address(entry), region, program }
    }
}

impl Declared {
    fn code(&self) -> &emit::Code {
        self.code.as_ref().unwrap_or_else(|| panic!("{} is not defined", self.name))
    }
}

/// What is true where a function begins.
fn cie(machine: &Machine) -> CommonInformationEntry {
    let encoding =
        Encoding { format: Format::Dwarf32, version: 1, address_size: machine.word as u8 };
    let (word, pushed) = (machine.word as i8, machine.call_pushes as i32);
    let mut cie = CommonInformationEntry::new(encoding, 1, -word, machine.return_address);
    cie.add_instruction(CallFrameInstruction::Cfa(machine.stack_pointer, pushed));
    if pushed > 0 {
        cie.add_instruction(CallFrameInstruction::Offset(machine.return_address, -pushed));
    }
    cie
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::every;
    use std::ffi::c_void;

    unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
        0
    }

    #[test]
    fn every_encoder_makes_the_same_functions() {
        for (name, encoder) in every() {
            let machine = encoder.machine();
            let mut compiler = Compiler { encoder, ..Compiler::default() };
            for yields in [false, true] {
                let rec = compiler.recursion(bottom, 40, yields);
                let guarded = compiler.guarded(rec);
                compiler.entry(guarded);
                compiler.back("back", guarded);
            }
            let (starts, bytes) = compiler.link();
            assert!(starts.iter().all(|start| start.is_multiple_of(ALIGNMENT)), "{name}");
            assert!(bytes.len() > *starts.last().expect("functions"), "{name}");
            for Declared { name: function, code, .. } in &compiler.functions {
                let code = code.as_ref().expect("defined");
                assert_eq!(code.frame % machine.alignment, 0, "{name}: {function}");
                let at = |slot: &u32| slot.is_multiple_of(machine.word) && *slot < code.frame;
                assert!(code.safepoints.iter().all(|(_, slots)| slots.iter().all(at)), "{name}");
            }
            let counts = compiler.functions.iter().map(|function| {
                let code = function.code();
                (code.safepoints.len(), code.landing_pads.len(), code.calls.len())
            });
            let rec = |yields: usize| (3 + yields, 0, 1);
            let others = [(2, 1, 1), (2, 0, 1), (2, 0, 1)];
            let expected = [&[rec(0)][..], &others, &[rec(2)], &others].concat();
            assert_eq!(counts.collect::<Vec<_>>(), expected, "{name}");
        }
    }
}
