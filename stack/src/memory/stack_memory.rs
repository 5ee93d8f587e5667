//! The memory of one stack, its sizes, and the errors of getting it.

use stackmark_asm as asm;

/// Bytes of a new goroutine's stack.
pub const MIN_STACK: usize = 2 << 10;
/// The largest frame of managed code, in bytes with its return address, that may be made before a
/// poll has asked for room (contract C4).
pub const MAX_FRAME: usize = 1024;
/// Bytes between the low end of a stack and the limit in its poll word. A function may make its
/// frame before its check runs, and a call out or a barrier stub needs more bytes below that.
pub const STACK_GUARD: usize = MAX_FRAME + asm::CALL_BYTES + 64;

/// Bytes at the low end of a thread's own stack that managed code leaves free: for the native code
/// that it calls there, and for hits, which visit frames.
pub(crate) const NATIVE_GUARD: usize = 64 << 10;

// A new stack has room above the guard.
const _: () = assert!(MIN_STACK > STACK_GUARD + asm::PREPARED_BYTES + 256);

/// Why there is no stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// The system gave no memory.
    #[error("no memory for a stack of {bytes} bytes: {reason}")]
    OutOfMemory {
        /// The bytes asked for.
        bytes: usize,
        /// The system's message.
        reason: String,
    },
    /// The stack would exceed its maximum.
    #[error("goroutine stack exceeds {limit}-byte limit")]
    Overflow {
        /// The configured maximum, in bytes.
        limit: usize,
    },
}

impl StackError {
    /// The system refused `bytes` bytes.
    pub(crate) fn out_of_memory(bytes: usize, reason: &std::io::Error) -> StackError {
        StackError::OutOfMemory { bytes, reason: reason.to_string() }
    }
}

/// Whether a goroutine's stack moves. Chosen when the goroutine is spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StackKind {
    /// The stack starts small and moves. For managed code that keeps contracts C1 to C3.
    #[default]
    Moving,
    /// The stack stays in one place: a reserved range of the maximum size, in which it grows and
    /// shrinks. Its scans are exact and place barriers, as those of moving stacks do. For managed
    /// code that keeps C1 and C3 but not C2: it keeps addresses of its own frames where no stack
    /// map names them, as LLVM's code does.
    Fixed,
}

/// Where a stack's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A piece of a span.
    Small,
    /// A mapping of its own.
    Medium,
    /// A reserved range, of which the upper part is in use. `base` is its lowest address above the
    /// guard page. Pages at `touched` and above are accessible, and have not been given back since
    /// they were in use.
    Reserved { base: usize, touched: usize },
}

/// The memory of one stack. Its owner gives it back to its pool.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StackMemory {
    /// Lowest address in use.
    pub(crate) lo: usize,
    /// One past the highest address.
    pub(crate) hi: usize,
    /// Where its bytes come from.
    pub(crate) origin: Origin,
}

impl StackMemory {
    /// Bytes in use.
    pub(crate) fn size(&self) -> usize {
        self.hi - self.lo
    }

    /// Whether it grows and shrinks in place.
    pub(crate) fn grows_in_place(&self) -> bool {
        matches!(self.origin, Origin::Reserved { .. })
    }
}
