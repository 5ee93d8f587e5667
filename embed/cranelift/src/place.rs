//! A module's code in its final place: in memory, with what is known of it.

use cranelift_codegen::isa::unwind::UnwindInfo;
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use stackmark::unwind::stack_map::cranelift;
use stackmark::unwind::{self, Code, FunctionUnwindInfo, Region, SourceLines, Vectors};
use std::collections::HashSet;
use std::sync::Arc;

use crate::declarations::Target;
use crate::error::ModuleError;
use crate::identity::FuncId;
use crate::module::{Made, Module};
use crate::program::{Placed, Program};

impl Module {
    /// # Errors
    /// [`ModuleError::Undefined`].
    pub(crate) fn check_defined(&self) -> Result<(), ModuleError> {
        let defined: HashSet<FuncId> = self.compiled.iter().map(|made| made.id).collect();
        match self.declarations.functions().filter(|id| !defined.contains(id)).min() {
            Some(id) => Err(ModuleError::Undefined { function: self.name(id).to_owned() }),
            None => Ok(()),
        }
    }

    /// Puts everything in its final place, and registers it with `code`. The code stays until the
    /// process ends.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn finish(self, code: &Code) -> Result<Program, ModuleError> {
        let (program, region) = self.place_all()?;
        code.register(region)?;
        Ok(program)
    }

    /// As [`Module::finish`], without registering it: that is the caller's.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn place_all(mut self) -> Result<(Program, Region), ModuleError> {
        self.check_defined()?;
        let ids: Vec<FuncId> = self.declarations.functions().collect();
        let Target::Memory(mut jit) = self.declarations.target else {
            return Err(ModuleError::Linked);
        };
        jit.finalize_definitions().map_err(|error| ModuleError::Finish(error.to_string()))?;
        let address = |id: FuncId| jit.get_finalized_function(id.id) as usize;
        let mut table = FrameTable::default();
        let cie =
            self.backends.plain.create_systemv_cie().ok_or_else(|| {
                ModuleError::Machine("it has no System V unwind information".into())
            })?;
        let cie = table.add_cie(cie);
        let mut region = Region {
            name: std::mem::take(&mut self.options.name),
            max_frame: u32::try_from(self.options.max_frame).ok(),
            vectors: Vectors::Results,
            ..Region::default()
        };
        let file: Arc<str> = std::mem::take(&mut self.options.file).into();
        let mut program = Program::empty();
        for Made { id, of, compiled } in self.compiled {
            let (start, len) = (address(id), compiled.bytes.len());
            region.vectors = region.vectors.max(compiled.vectors);
            region.functions.push(unwind::Function {
                name: compiled.name.clone(),
                start,
                len,
                source: (!file.is_empty()).then(|| source(&file, &compiled.lines)),
                ..unwind::Function::default()
            });
            region.safepoints.extend(compiled.safepoints.into_iter().map(|mut safepoint| {
                safepoint.return_address += start;
                safepoint
            }));
            if let Some(UnwindInfo::SystemV(info)) = &compiled.unwind {
                let mut entry = info.to_fde(Address::Constant(start as u64));
                // SAFETY: the function's code, in its final place, where it stays and is readable.
                let code = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
                cranelift::describe_epilogues(&mut entry, code);
                table.add_fde(cie, entry);
            }
            let info = compiled.unwind_info;
            let info = info.map(|bytes| FunctionUnwindInfo { start, len, bytes });
            region.unwind_info.extend(info);
            program.landing_pads.extend(
                compiled
                    .landing_pads
                    .iter()
                    .map(|(at, pad)| (start + *at as usize, start + *pad as usize)),
            );
            let (name, lines) = (compiled.name, compiled.lines);
            let makes_room = id == of && self.large.contains(&id);
            let placed = Placed { id: of, makes_room, name, start, len, lines };
            program.functions.push(placed);
        }
        let mut eh_frame = EhFrame::from(EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut eh_frame).map_err(|e| ModuleError::Finish(e.to_string()))?;
        region.eh_frame = eh_frame.0.into_vec();
        region.start = region.functions.iter().map(|f| f.start).min().unwrap_or(0);
        let end = region.functions.iter().map(|f| f.start + f.len).max().unwrap_or(0);
        region.len = end - region.start;
        // Large frames have entries that make room: only the bodies exceed the limit.
        if !self.large.is_empty() {
            region.max_frame = None;
        }
        program.functions.sort_unstable_by_key(|function| function.start);
        for id in ids {
            program.addresses.insert(id, address(id));
        }
        for (id, entries) in &self.entries {
            program.entries.insert(*id, entries.map(address));
        }
        // The code lives as long as the process.
        std::mem::forget(jit);
        Ok((program, region))
    }
}

/// A function's lines, for debuggers. Instructions without a location count to the line before.
fn source(file: &Arc<str>, lines: &[(u32, u32)]) -> SourceLines {
    let lines = lines.iter().copied().filter(|(_, line)| *line != 0).collect();
    SourceLines { file: file.clone(), lines }
}
