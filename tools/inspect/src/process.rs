//! The goroutines of a process, as `stackmark_debug_info` describes them, and their stacks.

use crate::core_file::Core;
use crate::error::Error;
use crate::managed::{self, Lines};
use crate::native::Native;
use object::ReadRef;
use stackmark_stack::DebugInfo;
use stackmark_unwind::{
    CallFrame, Code, Memory, RegisterSet, ReturnAddresses, RuleCache, Unwinder,
};
use std::collections::HashSet;
use std::fmt;
use std::mem::offset_of;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// A process in a core file.
pub struct Process<R> {
    core: Core<R>,
    info: Info,
    code: Code,
    lines: Lines,
    native: Native,
    complaints: Vec<String>,
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a goroutine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ready to run.
    Runnable,
    /// On its stack, or in native code that is atomic to the collector.
    Running,
    /// In native code that may wait.
    Foreign,
    /// Waiting to be made ready.
    Parked,
    /// Ended.
    Dead,
    /// A word that this program does not know.
    Unknown(u32),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Runnable => f.write_str("runnable"),
            State::Running => f.write_str("running"),
            State::Foreign => f.write_str("foreign"),
            State::Parked => f.write_str("parked"),
            State::Dead => f.write_str("dead"),
            State::Unknown(word) => write!(f, "state {word}"),
        }
    }
}

/// A goroutine that has not ended.
#[derive(Clone, Debug)]
pub struct Goroutine {
    /// The number of its runtime.
    pub runtime: u64,
    /// Its number.
    pub id: u64,
    /// What it is doing.
    pub state: State,
    /// The system's number of the thread that it is on; `None` if it is on none.
    pub thread: Option<i32>,
    stack: Range<usize>,
    /// The stack is the thread's own.
    is_thread: bool,
    registers: RegisterSet,
}

/// A frame of a goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The pc: a return address, but for the youngest frame of a thread.
    pub pc: usize,
    /// The function's name, or the file that it lies in, or `??`.
    pub name: String,
    /// File and line, where the embedder has given them.
    pub source: Option<(String, u32)>,
}

/// The frames of a goroutine, youngest first.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// Those that are the program's: barriers and the assembly between two stacks are left out.
    pub frames: Vec<Frame>,
    /// Why older frames are missing, if they are.
    pub cut_off: Option<String>,
}

/// The words of [`DebugInfo`] that are needed.
#[derive(Clone, Copy, Debug)]
struct Info {
    at: usize,
    /// The last one is the pool.
    hidden: [(usize, usize); 5],
    entry: (usize, usize),
    native_return: usize,
    table: usize,
    stub_bytes: usize,
}

/// Reads a word of the struct by its name.
macro_rules! word {
    ($core:expr, $at:expr, $name:ident) => {
        read($core, "stackmark_debug_info", $at.wrapping_add(offset_of!(DebugInfo, $name)))
    };
}

fn read<'d, R: ReadRef<'d>>(
    core: &Core<R>,
    what: &'static str,
    address: usize,
) -> Result<usize, Error> {
    core.read(address).ok_or(Error::Unreadable { what, address })
}

impl Info {
    /// Finds the struct: it begins with its magic bytes, and names its own address.
    fn find<'d, R: ReadRef<'d>>(core: &Core<R>) -> Result<Info, Error> {
        let magic: Vec<usize> = DebugInfo::MAGIC
            .chunks_exact(size_of::<usize>())
            .map(|word| usize::from_le_bytes(word.try_into().expect("the size of a word")))
            .collect();
        let words = core.data_of_files().flat_map(|data| data.step_by(size_of::<usize>()));
        let at = words.into_iter().find(|&at| {
            (0..)
                .zip(&magic)
                .all(|(i, word)| core.read(at.wrapping_add(i * size_of::<usize>())) == Some(*word))
                && core.read(at.wrapping_add(offset_of!(DebugInfo, here))) == Some(at)
        });
        let at = at.ok_or(Error::NoRuntime)?;
        let what = "stackmark_debug_info";
        let half = |address| core.half(address).ok_or(Error::Unreadable { what, address });
        let version = half(at.wrapping_add(offset_of!(DebugInfo, version)))?;
        let size = half(at.wrapping_add(offset_of!(DebugInfo, size)))?;
        if version != DebugInfo::VERSION {
            return Err(Error::Version { found: version, known: DebugInfo::VERSION });
        }
        if (size as usize) < size_of::<DebugInfo>() {
            return Err(Error::Short { found: size, known: size_of::<DebugInfo>() });
        }
        Ok(Info {
            at,
            hidden: [
                (word!(core, at, system_call_begin)?, word!(core, at, system_call_end)?),
                (word!(core, at, callback_begin)?, word!(core, at, callback_end)?),
                (word!(core, at, enter_begin)?, word!(core, at, enter_end)?),
                (word!(core, at, call_native_begin)?, word!(core, at, call_native_end)?),
                (word!(core, at, pool_begin)?, word!(core, at, pool_end)?),
            ],
            entry: (word!(core, at, entry_begin)?, word!(core, at, entry_end)?),
            native_return: word!(core, at, native_return)?,
            table: word!(core, at, table)?,
            stub_bytes: word!(core, at, stub_bytes)?,
        })
    }

    /// Whether a frame is the assembly's or a barrier's, and none of the program's.
    fn hides(&self, pc: usize) -> bool {
        pc == self.native_return
            || self.hidden.iter().any(|(begin, end)| (*begin..*end).contains(&pc))
    }

    fn is_oldest(&self, lookup_pc: usize) -> bool {
        (self.entry.0..self.entry.1).contains(&lookup_pc)
    }
}

/// The return addresses that barriers have saved.
struct Stubs<'p, R>(&'p Core<R>, &'p Info);

impl<'d, R: ReadRef<'d>> ReturnAddresses for Stubs<'_, R> {
    fn original(&self, found: usize) -> Option<usize> {
        let Stubs(core, info) = self;
        let [.., (begin, end)] = info.hidden;
        if !(begin..end).contains(&found) {
            return None;
        }
        let index = (found - begin).checked_div(info.stub_bytes)?;
        core.read(info.table.checked_add(index.checked_mul(size_of::<usize>())?)?)
    }
}

impl<'d, R: ReadRef<'d>> Process<R> {
    /// The process in `core`. The files that it had mapped are read where they were then;
    /// `program` takes the place of the program itself.
    ///
    /// # Errors
    /// [`Error`]: the core has no goroutines.
    pub fn new(core: Core<R>, program: Option<&Path>) -> Result<Process<R>, Error> {
        let info = Info::find(&core)?;
        let code = Code::new();
        let descriptor = word!(&core, info.at, jit_descriptor)?;
        let managed = managed::register(&core, descriptor, &code)?;
        let native = Native::load(&core, program, &code);
        let complaints = [managed.complaints, native.complaints.clone()].concat();
        Ok(Process { core, info, code, lines: managed.lines, native, complaints })
    }

    /// What could not be used: files that are gone or have changed, damaged objects. Stacks may be
    /// cut off where they are needed.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// The goroutines that have not ended, by runtime and number.
    ///
    /// # Errors
    /// [`Error`]: a list is damaged or not in the core.
    pub fn goroutines(&self) -> Result<Vec<Goroutine>, Error> {
        let core = &self.core;
        let at = self.info.at;
        let next_runtime = word!(core, at, runtime_next)?;
        let (id, first) = (word!(core, at, runtime_id)?, word!(core, at, runtime_goroutines)?);
        let next = word!(core, at, goroutine_next)?;
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut runtime = word!(core, at, runtimes)?;
        while runtime != 0 {
            if !seen.insert(runtime) {
                return Err(Error::Endless("runtimes"));
            }
            let of = |offset: usize| read(core, "a runtime", runtime.wrapping_add(offset));
            let number = of(id)? as u64;
            let mut record = of(first)?;
            while record != 0 {
                if !seen.insert(record) {
                    return Err(Error::Endless("goroutines"));
                }
                let goroutine = self.goroutine(record, number)?;
                if goroutine.state != State::Dead {
                    found.push(goroutine);
                }
                record = read(core, "a goroutine", record.wrapping_add(next))?;
            }
            runtime = of(next_runtime)?;
        }
        found.sort_by_key(|goroutine| (goroutine.runtime, goroutine.id));
        Ok(found)
    }

    fn goroutine(&self, record: usize, runtime: u64) -> Result<Goroutine, Error> {
        let (core, at) = (&self.core, self.info.at);
        let word = |offset: usize| read(core, "a goroutine", record.wrapping_add(offset));
        let half = |offset: usize| {
            let address = record.wrapping_add(offset);
            core.half(address).ok_or(Error::Unreadable { what: "a goroutine", address })
        };
        let away = half(word!(core, at, goroutine_foreign)?)? != 0
            || half(word!(core, at, goroutine_held)?)? != 0;
        let state = match half(word!(core, at, goroutine_status)?)? & (u32::MAX >> 1) {
            0 => State::Runnable,
            1 if away => State::Foreign,
            1 => State::Running,
            2 => State::Foreign,
            3 => State::Parked,
            4 => State::Dead,
            other => State::Unknown(other),
        };
        let callbacks = word(word!(core, at, goroutine_callbacks)?)?;
        let on_thread = matches!(state, State::Running | State::Foreign) || callbacks != 0;
        let thread = half(word!(core, at, goroutine_thread)?)?.cast_signed();
        Ok(Goroutine {
            runtime,
            id: word(word!(core, at, goroutine_id)?)? as u64,
            state,
            thread: on_thread.then_some(thread),
            stack: word(word!(core, at, goroutine_stack_lo)?)?
                ..word(word!(core, at, goroutine_stack_hi)?)?,
            is_thread: half(word!(core, at, goroutine_on_thread)?)? != 0,
            registers: RegisterSet::new(
                word(word!(core, at, goroutine_pc)?)?,
                word(word!(core, at, goroutine_sp)?)?,
                word(word!(core, at, goroutine_fp)?)?,
            ),
        })
    }

    /// The stack of a goroutine: that of its thread, if the thread stands on it or has called out
    /// from it.
    pub fn stack(&self, goroutine: &Goroutine) -> Stack {
        let threads = self.core.threads.iter();
        let thread = threads.clone().find(|(number, _)| Some(*number) == goroutine.thread);
        if let Some((_, registers)) = thread {
            let (stack, oldest) = self.walk(*registers, true);
            // Else the thread is just taking it up or laying it down, or the walk was cut off.
            if goroutine.is_thread || oldest.is_some_and(|sp| goroutine.stack.contains(&sp)) {
                return stack;
            }
        }
        self.walk(goroutine.registers, false).0
    }

    /// The frames from these registers on, and the stack pointer of a goroutine's oldest frame if
    /// the walk came to it.
    fn walk(&self, registers: RegisterSet, exact: bool) -> (Stack, Option<usize>) {
        let snapshot = self.code.snapshot();
        let mut cache = RuleCache::new();
        let returns = Stubs(&self.core, &self.info);
        let mut walk = Unwinder::new(&snapshot, &mut cache, &self.core, returns, registers);
        if !exact {
            walk = walk.at_return_address();
        }
        let mut stack = Stack::default();
        let walked = walk.for_each(|frame| {
            if self.info.is_oldest(frame.lookup_pc()) {
                return ControlFlow::Break(frame.sp);
            }
            if !self.info.hides(frame.pc) && !self.is_switch(&frame) {
                stack.frames.push(self.frame(&frame));
            }
            ControlFlow::Continue(())
        });
        let oldest = match walked {
            Ok(oldest) => oldest,
            Err(error) => {
                stack.cut_off = Some(error.to_string());
                None
            }
        };
        (stack, oldest)
    }

    /// Whether the frame is the assembly's part of a call out or of a callback on the other stack.
    fn is_switch(&self, frame: &CallFrame) -> bool {
        self.native.name(frame.lookup_pc()).is_some_and(|name| name == "__morestack")
    }

    fn frame(&self, frame: &CallFrame) -> Frame {
        let at = frame.lookup_pc();
        let name = match self.code.snapshot().function(at) {
            Some(function) => function.name.to_owned(),
            None => self.native.name(at).unwrap_or_else(|| "??".into()),
        };
        Frame { pc: frame.pc, name, source: self.lines.find(at) }
    }
}
