//! Code for a linker: a module whose functions go into an object file, and become a part of a
//! program that the library is linked into, too.
//!
//! The embedder brings the module that writes the file, for example `cranelift-object`'s, and
//! declares functions as for memory: the same front end makes both. Two things differ. Calls of the
//! library go by its symbols. And addresses of the process that compiles
//! ([`Function::address`](crate::Function::address)) mean nothing in the program. Code reads them
//! from a table, [`TABLE`], which the program fills before its managed code runs: the embedder is
//! told which addresses it refers to ([`ObjectCode::addresses`]), and knows what they stand for.

use cranelift_module::DataId;
use stackmark::unwind::stack_map::object::FunctionMaps;
use std::any::Any;

use crate::barrier::Barrier;
use crate::compile::Backends;
use crate::convention::is_of_windows;
use crate::declarations::{Declarations, Target};
use crate::error::ModuleError;
use crate::flags::object_isa;
use crate::identity::{FuncId, Identity};
use crate::module::{Made, Module, Options, RunsOn};
use crate::object::{MapsSection, section};
use crate::program::{Placed, Program};

pub use crate::addresses::{Linkable, TABLE};

/// A function in an object file.
#[derive(Clone, Debug)]
pub struct ObjectFunction {
    /// Its number in the module that wrote the file.
    pub symbol: cranelift_module::FuncId,
    /// As [`Placed`] has it, with 0 for the start: what a [`LinkedFunction`] needs of it.
    pub placed: Placed,
    /// Return addresses of calls that have a landing pad, and the pads, from the start.
    pub landing_pads: Vec<(u32, u32)>,
}

/// What belongs to the code of an object file. The embedder defines two data objects in the module
/// before it writes the file: the [`TABLE`], of as many words as there are addresses, and the
/// [section of maps](MapsSection). And it keeps in some form what the program is to know of its
/// functions.
#[derive(Debug)]
pub struct ObjectCode {
    /// The data object of the [`TABLE`].
    pub table: DataId,
    /// The addresses of this process that the code refers to, in the order of the table.
    pub addresses: Vec<usize>,
    /// The stack maps.
    pub maps: MapsSection,
    /// The functions.
    pub functions: Vec<ObjectFunction>,
}

impl ObjectCode {
    /// The place among the functions of what is called by this identity: of a function with a large
    /// frame, the entry that makes room.
    ///
    /// # Panics
    /// If the module has not declared it.
    pub fn place(&self, id: FuncId) -> usize {
        let place = self.functions.iter().position(|function| function.symbol == id.id);
        place.expect("a function of this module")
    }
}

impl Module {
    /// An empty module, of no engine, whose code goes into `module`: that one's machine is
    /// [`object_isa`]`("none")`. Code runs on goroutines' stacks, and is not signed. Of `options`
    /// it follows the level, the checks and the largest frame.
    ///
    /// # Errors
    /// [`ModuleError::Machine`], [`ModuleError::Setting`], [`ModuleError::NoImages`].
    ///
    /// # Panics
    /// If `module` knows symbols of the library already.
    pub fn linked(
        options: Options,
        barrier: Option<Barrier>,
        module: impl Linkable,
    ) -> Result<Module, ModuleError> {
        if is_of_windows(module.isa().default_call_conv()) {
            return Err(ModuleError::NoImages);
        }
        let options = Options { runs_on: RunsOn::default(), ..options };
        let (optimising, plain) = (object_isa(&options.opt_level)?, object_isa("none")?);
        let backends = Backends { optimising, plain, keeps_functions: true };
        let declarations = Declarations::linked(Box::new(module), barrier);
        Ok(Module::with(None, options, backends, declarations))
    }

    /// Gives the module back that was [given](Module::linked), with what belongs to its code.
    ///
    /// # Errors
    /// [`ModuleError::Undefined`]; [`ModuleError::Linked`] if the module is for memory, or was
    /// given one of another type.
    pub fn finish_linked<T: Linkable>(self) -> Result<(T, ObjectCode), ModuleError> {
        self.check_defined()?;
        let Target::Object(module, addresses) = self.declarations.target else {
            return Err(ModuleError::Linked);
        };
        let module: Box<dyn Any> = module;
        let module = module.downcast::<T>().map_err(|_| ModuleError::Linked)?;
        let (mut functions, mut maps) = (Vec::new(), Vec::new());
        for Made { id, of, compiled } in self.compiled {
            let symbol = id.id;
            let (has_room, safepoints) = (id != of, compiled.safepoints);
            maps.push((symbol, FunctionMaps { has_room, safepoints, ..FunctionMaps::default() }));
            let makes_room = id == of && self.large.contains(&id);
            let (name, len, lines) = (compiled.name, compiled.bytes.len(), compiled.lines);
            let placed = Placed { id: of, makes_room, name, start: 0, len, lines };
            let landing_pads = compiled.landing_pads;
            functions.push(ObjectFunction { symbol, placed, landing_pads });
        }
        let code = ObjectCode {
            table: addresses.table(),
            addresses: addresses.take(),
            maps: section(maps),
            functions,
        };
        Ok((*module, code))
    }
}

/// A function of a linked program, as it begins.
#[derive(Clone, Debug)]
pub struct LinkedFunction {
    /// Its address.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Its name.
    pub name: String,
    /// Whether it makes room for another one's large frame.
    pub makes_room: bool,
    /// As [`Placed::lines`].
    pub lines: Vec<(u32, u32)>,
    /// As [`ObjectFunction::landing_pads`].
    pub landing_pads: Vec<(u32, u32)>,
}

impl Program {
    /// The managed code of the running program, as it was linked. The caller registers it, by
    /// [`Runtime::register_image`](stackmark::stack::Runtime::register_image). Returns the
    /// functions' identities, too, in the order in which they are given.
    pub fn of_linked(functions: Vec<LinkedFunction>) -> (Program, Vec<FuncId>) {
        let (mut program, module) = (Program::empty(), Identity::new());
        let mut ids = Vec::new();
        for (number, function) in functions.into_iter().enumerate() {
            let LinkedFunction { start, len, name, makes_room, lines, landing_pads } = function;
            let id = cranelift_module::FuncId::from_u32(number as u32);
            let id = FuncId { module, id };
            let at = |(at, pad): (u32, u32)| (start + at as usize, start + pad as usize);
            program.landing_pads.extend(landing_pads.into_iter().map(at));
            program.functions.push(Placed { id, makes_room, name, start, len, lines });
            program.addresses.insert(id, start);
            ids.push(id);
        }
        program.functions.sort_unstable_by_key(|function| function.start);
        (program, ids)
    }
}
