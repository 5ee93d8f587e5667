//! Stack memory, the pool that it comes from, and alternate signal stacks.

mod pool;
mod signal_stack;
mod stack_memory;

pub(crate) use pool::StackPool;
pub(crate) use signal_stack::{NoSignalStack, SignalStack, ensure_signal_stack, in_signal_handler};
pub use stack_memory::{MAX_FRAME, StackError, StackKind};
pub(crate) use stack_memory::{NATIVE_GUARD, StackMemory, first_stack, stack_guard};
