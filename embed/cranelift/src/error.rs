//! Why a function or a module is refused.

use cranelift_codegen::ir::Type;
use stackmark::stack::{CallInError, StackError};
use stackmark::unwind::CodeError;

/// Why a function is not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The results do not fit into the result registers and the words of a goroutine's header.
    #[error("{results} results are more than registers and result words hold: return an object")]
    TooManyResults {
        /// How many there are.
        results: usize,
    },
    /// Functions pass integers of at most 64 bits, and floating-point numbers of 32 and 64.
    #[error("{of} is neither a parameter nor a result: it does not fit into a word")]
    Wide {
        /// The type.
        of: Type,
    },
    /// A function of another module was named, or code that was built for another function given.
    #[error("{what} is not of this module")]
    OtherModule {
        /// The function, or its code.
        what: String,
    },
    /// A function got other arguments, or returned other results, than its signature says.
    #[error("function {function}: {what} has {found} values where {expected} are expected")]
    Arity {
        /// The function that is compiled.
        function: String,
        /// The call or the return.
        what: String,
        /// How many values it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A reference or an address of the stack lives across a call in a register or an unmapped
    /// slot. A collection would not see it, or a move of the stack would not adjust it.
    #[error(
        "function {function}: {value} ({what}) lives across {call} outside of a mapped slot; \
         declare it by `Function::reference`"
    )]
    Held {
        /// The function.
        function: String,
        /// The value, as Cranelift prints it.
        value: String,
        /// What the value is.
        what: &'static str,
        /// The call, as Cranelift prints it.
        call: String,
    },
    /// Code that is entered with unknown registers uses a value from elsewhere.
    #[error("function {function}: what is reached from {block} uses {values} from outside")]
    NotIsolated {
        /// The function.
        function: String,
        /// Where it is entered.
        block: String,
        /// The values.
        values: String,
    },
    /// A function returned a result of another type than its signature says.
    #[error("function {function}: result {index} is of type {found} where {expected} is expected")]
    ResultType {
        /// The function.
        function: String,
        /// Which result.
        index: usize,
        /// Its type.
        expected: Type,
        /// The type of what is returned.
        found: Type,
    },
    /// A slot with references is not initialised before this call, which it is mapped at.
    #[error("function {function}: {slot} is not initialised on every path to {call}")]
    Uninitialised {
        /// The function.
        function: String,
        /// The slot, as Cranelift prints it.
        slot: String,
        /// The call, as Cranelift prints it.
        call: String,
    },
    /// A block has no instruction that leaves it.
    #[error("function {function}: nothing leaves {block}")]
    Unfilled {
        /// The function.
        function: String,
        /// The block, as Cranelift prints it.
        block: String,
    },
    /// A slot that is too large, or has references behind its end.
    #[error(
        "function {function}: no slot of {bytes} bytes has {words} words that are mapped or not"
    )]
    Slot {
        /// The function.
        function: String,
        /// The slot's size.
        bytes: u32,
        /// How many words the front end has told of.
        words: usize,
    },
    /// The frame is larger than there is room for: that of a function that is entered by a
    /// goroutine's start or by native code, or of one with very many parameters. What it does
    /// belongs into a function that it calls.
    #[error("function {function}: its frame has {bytes} bytes of at most {limit}")]
    Frame {
        /// The function.
        function: String,
        /// The size of its frame.
        bytes: u32,
        /// The most that it may have.
        limit: usize,
    },
    /// Cranelift refuses the code.
    #[error("function {function}: {error}")]
    Cranelift {
        /// The function.
        function: String,
        /// What Cranelift says.
        error: String,
    },
    /// The object file is for Windows, whose programs hold no managed code: stack maps are read
    /// from ELF files.
    #[error("function {function}: no stack maps are read from a file for Windows")]
    NoImages {
        /// The function.
        function: String,
    },
    /// The function is defined already, or the memory for code is full.
    #[error("function {function} cannot be placed: {error}")]
    Place {
        /// The function.
        function: String,
        /// What Cranelift says.
        error: String,
    },
}

/// Why there is no module, or why it cannot be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Cranelift does not support this machine.
    #[error("Cranelift does not compile for this machine: {0}")]
    Machine(String),
    /// Cranelift has no such setting.
    #[error("Cranelift's setting {name} is not {value}: {error}")]
    Setting {
        /// The setting.
        name: String,
        /// What it was to be.
        value: String,
        /// Cranelift's reason.
        error: String,
    },
    /// More address space for code than calls reach.
    #[error("{bytes} bytes of code where calls reach {limit}")]
    TooLarge {
        /// How many were asked for.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The module was not made by this engine.
    #[error("the module belongs to another engine")]
    OtherEngine,
    /// A function is declared, and exported or called perhaps, but not defined.
    #[error("function {function} is declared and not defined")]
    Undefined {
        /// The function.
        function: String,
    },
    /// The system gives no address space for code.
    #[error("cannot reserve address space for {bytes} bytes of code: {error}")]
    Reserve {
        /// How many were asked for.
        bytes: usize,
        /// The system's reason.
        error: String,
    },
    /// The module's code goes into an object file, and not into memory, or the other way round; or
    /// into another module than is asked for.
    #[error("the module's code goes elsewhere")]
    Linked,
    /// The module's code goes into an object file for Windows, whose programs hold no managed code:
    /// stack maps are read from ELF files.
    #[error("no stack maps are read from a file for Windows")]
    NoImages,
    /// The memory for code cannot be protected, or there is no unwind information.
    #[error("the code cannot be finished: {0}")]
    Finish(String),
    /// The code cannot be registered.
    #[error(transparent)]
    Code(#[from] CodeError),
}

/// Why a function of a program is not entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The function is another program's, or its module has not
    /// [exported](crate::Module::export) it.
    #[error("the program's module has not exported this function")]
    NotExported,
    /// A goroutine begins with a function of at most one parameter.
    #[error("a goroutine begins with at most one parameter, and the function has {params}")]
    Parameters {
        /// How many it has.
        params: usize,
    },
    /// [`Engine::run`](crate::Engine::run) and [`Engine::call_in`](crate::Engine::call_in) take and
    /// return plain words.
    #[error("the function takes or returns a reference")]
    References,
    /// There are not as many words as arguments and results.
    #[error("{found} words for {expected} arguments and results")]
    Words {
        /// How many arguments and results there are.
        expected: usize,
        /// How many words were given.
        found: usize,
    },
    /// There is no memory for a stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The goroutine cannot be called back.
    #[error(transparent)]
    CallIn(#[from] CallInError),
}
