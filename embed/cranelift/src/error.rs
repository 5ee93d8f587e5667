//! Why a function or a module is refused.

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
    /// The object's descriptor or size is not one for inline or native allocation.
    #[error("function {function}: no object has {bytes} bytes")]
    ObjectSize {
        /// The function.
        function: String,
        /// The size.
        bytes: usize,
    },
    /// Cranelift refuses the code.
    #[error("function {function}: {error}")]
    Cranelift {
        /// The function.
        function: String,
        /// What Cranelift says.
        error: String,
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
    /// The system gives no address space for code.
    #[error("cannot reserve address space for {bytes} bytes of code: {error}")]
    Reserve {
        /// How many were asked for.
        bytes: usize,
        /// The system's reason.
        error: String,
    },
    /// A declared function is not defined, or calls do not reach each other.
    #[error("the code cannot be finished: {0}")]
    Finish(String),
    /// The code cannot be registered.
    #[error(transparent)]
    Code(#[from] CodeError),
}
