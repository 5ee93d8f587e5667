//! The memory of one stack, its sizes, and the errors of getting it.

use stackmark_asm as asm;

/// Bytes of the smallest stack.
pub(crate) const MIN_STACK: usize = 1 << 10;
/// The default of [`Config::max_frame`](crate::Config::max_frame), in bytes.
pub const MAX_FRAME: usize = 1024;

/// Bytes between the low end of a stack and the limit in its poll word, where frames of at most
/// `max_frame` bytes are made before their check runs. A call out or a barrier stub needs more
/// bytes below that.
pub(crate) const fn stack_guard(max_frame: usize) -> usize {
    max_frame + asm::CALL_BYTES + 64
}

/// Bytes of a new goroutine's stack with this guard: it has room for a few frames besides what it
/// is prepared with.
pub(crate) const fn first_stack(guard: usize) -> usize {
    let wanted = (guard + asm::PREPARED_BYTES + 192).next_power_of_two();
    if wanted < MIN_STACK { MIN_STACK } else { wanted }
}

/// Bytes at the low end of a thread's own stack that managed code leaves free: for the native code
/// that it calls there, and for hits, which visit frames.
pub(crate) const NATIVE_GUARD: usize = 64 << 10;

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
