//! How a runtime behaves.

use super::return_protection::{Detection, ReturnProtection, in_use};
use crate::memory::{MAX_FRAME, first_stack, stack_guard};
use crate::word::Word;
use stackmark_asm as asm;
use stackmark_unwind::CodeError;
use std::time::Duration;

/// Whether return addresses are hijacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BarrierMode {
    /// A stack is scanned a little at a time, behind a frontier, while its goroutine runs. Rescan
    /// barriers at 1 KiB, 2 KiB, 4 KiB ... from the stack pointer of a scan bound the rescan.
    #[default]
    Incremental,
    /// A stack is scanned whole while its goroutine waits. Rescan barriers bound the rescan.
    RescanLimit,
    /// For debugging: as [`BarrierMode::RescanLimit`], with a barrier in every
    /// frame that may have one.
    EveryFrame,
    /// No barriers: stacks that have run since their scan are rescanned whole.
    Off,
}

impl std::fmt::Display for BarrierMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BarrierMode::Incremental => "incremental",
            BarrierMode::RescanLimit => "rescan limit",
            BarrierMode::EveryFrame => "every frame",
            BarrierMode::Off => "off",
        })
    }
}

/// The mode of barriers that a runtime is in. It is the chosen one, or [`BarrierMode::Off`] because
/// of a protection of return addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ModeInForce {
    /// The mode.
    pub mode: BarrierMode,
    /// The mode that [`Config::barriers`] asked for.
    pub chosen: BarrierMode,
    /// The protection of return addresses that was found or assumed.
    pub protection: Option<ReturnProtection>,
}

impl ModeInForce {
    pub(crate) fn new(config: &Config) -> ModeInForce {
        let chosen = config.barriers;
        let (protection, mode) = match config.protection {
            Detection::Ask => (in_use(), BarrierMode::Off),
            Detection::Assume(protection) => (Some(protection), BarrierMode::Off),
            Detection::Ignore => (in_use(), chosen),
        };
        ModeInForce { mode: if protection.is_some() { mode } else { chosen }, chosen, protection }
    }
}

/// How a runtime behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest stack, in bytes: at least [`Config::LEAST_MAX_STACK`], at most
    /// [`Config::LARGEST_MAX_STACK`]. On Windows no stack has more than 4 GiB less one MiB.
    pub max_stack: usize,
    /// The largest frame of managed code, in bytes with its return address and what its calls push,
    /// that may be made before a poll has asked for room (contract C4): at least
    /// [`Config::LEAST_MAX_FRAME`], at most [`Config::LARGEST_MAX_FRAME`]. So many bytes of each
    /// stack stay free below its frames. By default [`MAX_FRAME`](crate::MAX_FRAME); a new
    /// goroutine's stack has 2 KiB then, and 1 KiB where this is at most 384 and calls out keep few
    /// registers (not on Windows). Go's `StackSmall` has the same purpose.
    pub max_frame: usize,
    /// A stack that outgrows this many bytes moves once more, into a reserved range, and
    /// grows in place from then on. Any value is valid: with 0 the first growth does so,
    /// with `usize::MAX` none does.
    pub move_limit: usize,
    /// Whether return addresses are hijacked, unless the hardware forbids it.
    pub barriers: BarrierMode,
    /// How the runtime finds out whether the hardware forbids barriers.
    pub protection: Detection,
    /// A handshake or a stop of the world that takes longer is reported to
    /// [`Host::warn`](crate::Host::warn), once, with the traceback of the goroutine that it waits
    /// for. `None`: no report.
    pub report_stop_after: Option<Duration>,
    /// Native frames of a [native stack](crate#native-stacks) have roots while managed code that
    /// they have called runs: each of their words is one, if it refers to an object. That is for
    /// native code that keeps references in plain words over such calls, and for heaps that do not
    /// move, in which any word may be looked up. It holds for no native frame in a [foreign
    /// call](crate::Caller::foreign), outside of which native code is atomic to a collector anyhow.
    /// The idea of such roots is Boehm's and Weiser's (1988).
    pub ambiguous_native_roots: bool,
    /// The words `language` of a goroutine's header are references or 0, which a collector that
    /// moves objects may write. Otherwise they are ambiguous: see
    /// [`RootSlot`](crate::RootSlot).
    pub exact_language_words: bool,
    /// For debugging: scan very few frames at a time, in every mode but [`BarrierMode::Off`].
    pub scan_few_frames: bool,
    /// Places barriers in the slots of callbacks, where none may be: for a test of the assertion
    /// that catches it.
    #[doc(hidden)]
    pub hijack_callbacks: HijackCallbacks,
    /// For debugging: move the stack at every poll.
    pub move_every_poll: bool,
    /// For debugging: fill freed stack memory with [`POISON`](crate::POISON).
    pub poison: bool,
    /// For debugging: every stack check calls [`poll`](crate::poll), even without a request.
    pub poll_always: bool,
}

/// Whether the assembly's frames keep more than general registers.
const KEEPS_MANY: bool = asm::CALL_BYTES > 256;
// As the field's documentation says.
const _: () = assert!(first_stack(stack_guard(MAX_FRAME)) == 2 << 10);
const _: () = assert!(first_stack(stack_guard(384)) == if KEEPS_MANY { 2 << 10 } else { 1 << 10 });
const _: () = assert!(
    first_stack(stack_guard(Config::LARGEST_MAX_FRAME)) <= Config::LEAST_MAX_STACK,
    "a new stack is not above the maximum"
);

/// Whether barriers lie where none may be: off, unless unsafe code says otherwise.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HijackCallbacks(bool);

impl HijackCallbacks {
    /// # Safety
    /// The process ends before any callback of the runtime returns.
    pub const unsafe fn on() -> HijackCallbacks {
        HijackCallbacks(true)
    }

    pub(crate) fn is_on(self) -> bool {
        self.0
    }
}

/// Whether there is much more address space than memory.
const WIDE: bool = usize::BITS > 32;
/// As in Go, by the address space that there is.
const DEFAULT_MAX_STACK: usize = if WIDE { 1_000_000_000 } else { 250_000_000 };

impl Default for Config {
    fn default() -> Self {
        Config {
            max_stack: DEFAULT_MAX_STACK,
            max_frame: MAX_FRAME,
            move_limit: 256 << 10,
            barriers: BarrierMode::default(),
            protection: Detection::default(),
            report_stop_after: Some(Duration::from_secs(10)),
            ambiguous_native_roots: false,
            exact_language_words: false,
            scan_few_frames: false,
            hijack_callbacks: HijackCallbacks::default(),
            move_every_poll: false,
            poison: false,
            poll_always: false,
        }
    }
}

impl Config {
    /// The least [`Config::max_stack`].
    pub const LEAST_MAX_STACK: usize = 8 << 10;
    /// The largest [`Config::max_stack`]: each stack that grows in place reserves as many bytes of
    /// address space as `max_stack`.
    pub const LARGEST_MAX_STACK: usize = 1 << if WIDE { 40 } else { 28 };

    /// The least [`Config::max_frame`].
    pub const LEAST_MAX_FRAME: usize = 256;
    /// The largest [`Config::max_frame`].
    pub const LARGEST_MAX_FRAME: usize = 4 << 10;

    /// Bytes at the low end of a goroutine's stack that its frames leave free.
    pub(crate) fn guard(&self) -> usize {
        stack_guard(self.max_frame)
    }

    /// Bytes of a new goroutine's moving stack.
    pub(crate) fn first_stack(&self) -> usize {
        first_stack(self.guard())
    }

    /// What the words `language` of a goroutine's header are.
    pub(crate) fn language(&self) -> fn(usize) -> Word {
        if self.exact_language_words { Word::Reference } else { Word::Ambiguous }
    }

    /// # Errors
    /// [`RuntimeError::MaxStack`], [`RuntimeError::MaxFrame`].
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        let (least, most) = (Config::LEAST_MAX_STACK, Config::LARGEST_MAX_STACK);
        if !(least..=most).contains(&self.max_stack) {
            return Err(RuntimeError::MaxStack { value: self.max_stack, least, most });
        }
        let (least, most) = (Config::LEAST_MAX_FRAME, Config::LARGEST_MAX_FRAME);
        if !(least..=most).contains(&self.max_frame) {
            return Err(RuntimeError::MaxFrame { value: self.max_frame, least, most });
        }
        Ok(())
    }
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// [`Config::max_stack`] is out of range.
    #[error("max_stack is {value}, and must be between {least} and {most} bytes")]
    MaxStack {
        /// The value that was asked for.
        value: usize,
        /// See [`Config::LEAST_MAX_STACK`].
        least: usize,
        /// See [`Config::LARGEST_MAX_STACK`].
        most: usize,
    },
    /// [`Config::max_frame`] is out of range.
    #[error("max_frame is {value}, and must be between {least} and {most} bytes")]
    MaxFrame {
        /// The value that was asked for.
        value: usize,
        /// See [`Config::LEAST_MAX_FRAME`].
        least: usize,
        /// See [`Config::LARGEST_MAX_FRAME`].
        most: usize,
    },
    /// The code belongs to another runtime, or did. A runtime that forgets code looks for frames of
    /// it in its own goroutines, so a [`Code`](stackmark_unwind::Code) has one runtime in its life.
    #[error("the registered code belongs to another runtime: a `Code` has one runtime in its life")]
    CodeInUse,
    /// The frames of the assembly cannot be registered: their rules are not found in the program's
    /// image, or other frames are registered there.
    #[error(transparent)]
    Code(#[from] CodeError),
}
