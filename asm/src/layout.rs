//! The `#[repr(C)]` headers that the assembly reads and writes, with their offsets checked at
//! compile time.
//!
//! The assembly knows nothing of Rust types beyond the two headers and
//! [`Continuation`](crate::Continuation). An embedder's code generator may rely on the offsets too:
//! they are public constants.

use core::ffi::c_void;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, AtomicUsize};

/// How many words of [`GoroutineHeader::results`] a goroutine has.
pub const RESULT_WORDS: usize = 16;

/// Where a stopped goroutine stands: what `call_system` saves before it leaves the goroutine's
/// stack.
///
/// `sp` and `fp` are addresses in the goroutine's stack as it lies *now*: a move of the stack
/// rewrites them.
///
/// On a native stack it is the *anchor*: pc, stack pointer and frame pointer of the managed frame
/// that has called [`call_native`](crate::call_native), as they are when the call returns. `sp` is
/// 0 while managed code runs, and while no managed frame has called native code.
#[repr(C)]
#[derive(Debug)]
pub struct Sched {
    /// The pc at which the goroutine goes on: one of two labels beside `call_system`, never a
    /// barrier stub.
    pub pc: AtomicUsize,
    /// The stack pointer at that pc.
    pub sp: AtomicUsize,
    /// The frame pointer of the managed frame that called out.
    pub fp: AtomicUsize,
}

/// The part of a goroutine that assembly and managed code address.
///
/// The words are atomics because a collector reads them from another thread while it holds the
/// goroutine. The assembly uses plain moves, which on every supported architecture are relaxed
/// accesses.
#[repr(C)]
#[derive(Debug)]
pub struct GoroutineHeader {
    /// The poll word: managed code whose stack pointer is below it calls out. `usize::MAX` asks for
    /// a safepoint.
    pub stack_limit: AtomicUsize,
    /// One past the highest address of the stack.
    pub stack_hi: AtomicUsize,
    /// The lowest address of the stack that may be used.
    pub stack_lo: AtomicUsize,
    /// Where the goroutine stands when it is not on its stack.
    pub sched: Sched,
    /// What `call_system` returns when the goroutine goes on after it was parked.
    pub resume_value: AtomicUsize,
    /// The managed function that `goroutine_entry` calls.
    pub entry: AtomicUsize,
    /// Its argument: a root until `goroutine_entry` has loaded and cleared it.
    pub start_arg: AtomicUsize,
    /// Native function that `goroutine_entry` calls, on the system stack, when the managed one has
    /// returned.
    pub on_exit: AtomicUsize,
    /// Set by `callback` while it is on the goroutine's stack: how many callbacks are nested.
    pub callback_depth: AtomicUsize,
    /// A word for the embedder.
    pub user: AtomicUsize,
    /// Words for results beyond the result registers and for arguments of native calls. Not roots:
    /// they are loaded right after the call returns, before the next safepoint.
    pub results: [AtomicU64; RESULT_WORDS],
    /// Native function that `goroutine_entry` calls, on the system stack, with an uncaught
    /// exception: `fn(exception, goroutine)`, which does not return. 0: exceptions find no handler.
    pub on_uncaught: AtomicUsize,
    /// The host's word of the machine that runs the goroutine; the host rewrites it whenever the
    /// goroutine begins to run. For managed code that needs something of its thread, as an
    /// allocator's fields. Managed code loads it anew after each call.
    pub machine_word: AtomicUsize,
    /// More words for the embedder, 0 when a goroutine begins: for the heads of lists that native
    /// code walks. What they refer to is a root. A store of a reference goes through the write
    /// barrier, as one to a global does. A move of the stack does not adjust addresses in them.
    pub language: [AtomicUsize; 2],
    /// Not 0 from the moment an exception that nothing else catches has found its handler in
    /// `goroutine_entry`: until it arrives there, the stack stays where it is, since the system's
    /// unwinder keeps the handler's CFA as an address. Cleared by native code.
    pub exception_crosses: AtomicUsize,
    /// The address of the youngest [`EntryRecord`]: managed code runs on a native stack. 0 for
    /// goroutines with stacks of their own, and outside of [`enter_managed`](crate::enter_managed).
    pub entered: AtomicUsize,
    /// On a native stack: the lowest address that is watched, `usize::MAX` if none is. A
    /// [`call_native`](crate::call_native) that returns to a frame with a higher stack pointer
    /// calls [`MachineHeader::on_watched`] first.
    pub watch: AtomicUsize,
    /// AddressSanitizer's record of the instrumented frames on this stack, while another stack is
    /// in use.
    #[cfg(stackmark_asan)]
    pub(crate) fake_stack: AtomicUsize,
}

/// The part of a machine that the assembly addresses. A machine belongs to one OS thread.
#[repr(C)]
#[derive(Debug)]
pub struct MachineHeader {
    /// The goroutine that this machine runs, or null.
    pub goroutine: AtomicUsize,
    /// Where native code starts when managed code calls out: an address in the system stack.
    /// Outside of callbacks it is the stack pointer that [`run`](crate::run) goes on with.
    pub system_sp: AtomicUsize,
    /// What a hit calls, on the system stack: a [`HitFn`]. It writes the saved return address over
    /// the slot.
    pub on_hit: AtomicUsize,
    /// What a stub calls, on the system stack, when an exception has passed its barrier: a
    /// [`BarrierFn`], or 0. The slot holds the saved return address already.
    pub on_leapfrog: AtomicUsize,
    /// A word for the host, for example a pointer to the rest of the machine.
    pub host: AtomicUsize,
    /// Where [`run`](crate::run) goes on when the goroutine is left.
    pub run_pc: AtomicUsize,
    /// Its frame pointer there.
    pub run_fp: AtomicUsize,
    /// Its word there in the one other register that the compiler cannot keep elsewhere.
    pub run_saved: AtomicUsize,
    /// The exception that is on its way to a stub, from the personality of the pool until the stub
    /// takes it; 0 otherwise.
    pub passing: AtomicUsize,
    /// What [`call_native`](crate::call_native) calls on its way back to managed code, by a return
    /// or an exception, where `watch` asks for it: a [`WatchFn`].
    pub on_watched: AtomicUsize,
    /// The address of a byte, or 0. The byte says which vector registers a hit keeps at least:
    /// [`KEEPS_RESULTS`], [`KEEPS_NARROW`] or [`KEEPS_ALL`]. With 0 for the address a hit keeps all
    /// that the processor has.
    pub kept_vectors: AtomicUsize,
    /// Where the system keeps a record of the stack that a thread uses: what it says of the system
    /// stack while a goroutine's is in use, and where [`run`](crate::run) goes on.
    pub system: [AtomicUsize; SYSTEM_WORDS],
    /// Where exceptions cannot cross from one stack to the other: what
    /// [`call_system`](crate::call_system) calls, on the system stack, with an exception that has
    /// left the native function; a [`ThrownFn`], or 0. If it returns, and without it, the
    /// exception is thrown again on the goroutine's stack, which needs room for that.
    pub on_thrown: AtomicUsize,
}

/// How many words [`MachineHeader::system`] has.
const SYSTEM_WORDS: usize = 6;

/// Managed code returns by the platform's C convention, and nothing in vectors beyond 128 bits: a
/// hit keeps the vector registers of results, and on x86-64 no x87 state. Where the convention has
/// the callee keep vector registers, the hook keeps them.
pub const KEEPS_RESULTS: u8 = 0;
/// Managed code uses no vector registers but the low 128 bits of the first sixteen, and none for
/// masks: a hit keeps those.
pub const KEEPS_NARROW: u8 = 1;
/// A hit keeps all vector registers.
pub const KEEPS_ALL: u8 = 2;

/// What the frame of [`enter_managed`](crate::enter_managed) keeps, at its stack pointer. It is the
/// way of a walk from the managed frames of one entry to those of the next older one.
#[repr(C)]
#[derive(Debug)]
pub struct EntryRecord {
    /// The address of the goroutine's header.
    pub goroutine: usize,
    /// Where the youngest managed frame of the older entry stands: the `sched` of before. Its `sp`
    /// is 0 if there is none, or if it called native code otherwise than by
    /// [`call_native`](crate::call_native).
    pub anchor: Sched,
    /// The address of the next older record, or 0.
    pub previous: usize,
}

/// What a machine calls when a barrier is leapfrogged: the machine, the address of the hijacked
/// slot and the index of the stub.
pub type BarrierFn = unsafe extern "C" fn(*mut MachineHeader, *mut usize, usize);

/// What a machine calls when a barrier is hit: the words of a [`BarrierFn`], and the frame pointer
/// with which the goroutine returns.
pub type HitFn = unsafe extern "C" fn(*mut MachineHeader, *mut usize, usize, usize);

/// What a machine calls when managed code is about to go on behind a call of native code, and
/// something that is watched is younger: the machine, and the stack pointer, pc and frame pointer
/// of the managed frame.
pub type WatchFn = unsafe extern "C" fn(*mut MachineHeader, usize, usize, usize);

/// What a machine calls when an exception has left native code that managed code has called: the
/// `_Unwind_Exception`, and the goroutine.
pub type ThrownFn = unsafe extern "C-unwind" fn(*mut c_void, *mut GoroutineHeader);

/// A native function as `call_system` calls it: two words in, one word out.
pub type NativeFn = unsafe extern "C-unwind" fn(*mut c_void, usize) -> usize;

/// Managed code as [`callback`](crate::callback) calls it: one word in, one word out.
pub type ManagedFn = unsafe extern "C-unwind" fn(usize) -> usize;

/// What [`leave_callback_by`](crate::leave_callback_by) goes on with.
pub type ContinueFn = unsafe extern "C-unwind" fn(*mut c_void) -> !;

/// What [`catch`](crate::catch) calls.
pub type CaughtFn = unsafe extern "C-unwind" fn(*mut c_void);

/// Bytes of a word.
const W: usize = size_of::<usize>();
/// Bytes of [`GoroutineHeader::results`].
const RESULTS: usize = RESULT_WORDS * size_of::<u64>();

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $ty:ident . $($field:ident).+ @ $at:expr;)*) => {$(
        $(#[$doc])*
        pub const $name: usize = $at;
        const _: () = assert!(offset_of!($ty, $($field).+) == $at);
    )*};
}

offsets! {
    /// Offset of [`GoroutineHeader::stack_limit`].
    G_STACK_LIMIT = GoroutineHeader.stack_limit @ 0;
    /// Offset of [`GoroutineHeader::stack_hi`].
    G_STACK_HI = GoroutineHeader.stack_hi @ W;
    /// Offset of [`GoroutineHeader::stack_lo`].
    G_STACK_LO = GoroutineHeader.stack_lo @ 2 * W;
    /// Offset of [`Sched::pc`] in a goroutine.
    G_SCHED_PC = GoroutineHeader.sched.pc @ 3 * W;
    /// Offset of [`Sched::sp`] in a goroutine.
    G_SCHED_SP = GoroutineHeader.sched.sp @ 4 * W;
    /// Offset of [`Sched::fp`] in a goroutine.
    G_SCHED_FP = GoroutineHeader.sched.fp @ 5 * W;
    /// Offset of [`GoroutineHeader::resume_value`].
    G_RESUME_VALUE = GoroutineHeader.resume_value @ 6 * W;
    /// Offset of [`GoroutineHeader::entry`].
    G_ENTRY = GoroutineHeader.entry @ 7 * W;
    /// Offset of [`GoroutineHeader::start_arg`].
    G_START_ARG = GoroutineHeader.start_arg @ 8 * W;
    /// Offset of [`GoroutineHeader::on_exit`].
    G_ON_EXIT = GoroutineHeader.on_exit @ 9 * W;
    /// Offset of [`GoroutineHeader::callback_depth`].
    G_CALLBACK_DEPTH = GoroutineHeader.callback_depth @ 10 * W;
    /// Offset of [`GoroutineHeader::user`].
    G_USER = GoroutineHeader.user @ 11 * W;
    /// Offset of [`GoroutineHeader::results`].
    G_RESULTS = GoroutineHeader.results @ 12 * W;
    /// Offset of [`GoroutineHeader::on_uncaught`].
    G_ON_UNCAUGHT = GoroutineHeader.on_uncaught @ 12 * W + RESULTS;
    /// Offset of [`GoroutineHeader::machine_word`].
    G_MACHINE_WORD = GoroutineHeader.machine_word @ 13 * W + RESULTS;
    /// Offset of [`GoroutineHeader::language`].
    G_LANGUAGE = GoroutineHeader.language @ 14 * W + RESULTS;
    /// Offset of [`GoroutineHeader::entered`].
    G_ENTERED = GoroutineHeader.entered @ 17 * W + RESULTS;
    /// Offset of [`GoroutineHeader::watch`].
    G_WATCH = GoroutineHeader.watch @ 18 * W + RESULTS;
    /// Offset of [`MachineHeader::goroutine`].
    M_GOROUTINE = MachineHeader.goroutine @ 0;
    /// Offset of [`MachineHeader::system_sp`].
    M_SYSTEM_SP = MachineHeader.system_sp @ W;
    /// Offset of [`MachineHeader::on_hit`].
    M_ON_HIT = MachineHeader.on_hit @ 2 * W;
    /// Offset of [`MachineHeader::on_leapfrog`].
    M_ON_LEAPFROG = MachineHeader.on_leapfrog @ 3 * W;
    /// Offset of [`MachineHeader::host`].
    M_HOST = MachineHeader.host @ 4 * W;
    /// Offset of [`MachineHeader::run_pc`].
    M_RUN_PC = MachineHeader.run_pc @ 5 * W;
    /// Offset of [`MachineHeader::run_fp`].
    M_RUN_FP = MachineHeader.run_fp @ 6 * W;
    /// Offset of [`MachineHeader::run_saved`].
    M_RUN_SAVED = MachineHeader.run_saved @ 7 * W;
    /// Offset of [`MachineHeader::passing`].
    M_PASSING = MachineHeader.passing @ 8 * W;
    /// Offset of [`MachineHeader::on_watched`].
    M_ON_WATCHED = MachineHeader.on_watched @ 9 * W;
    /// Offset of [`MachineHeader::kept_vectors`].
    M_KEPT_VECTORS = MachineHeader.kept_vectors @ 10 * W;
    /// Offset of [`MachineHeader::system`].
    M_SYSTEM = MachineHeader.system @ 11 * W;
    /// Offset of [`MachineHeader::on_thrown`].
    M_ON_THROWN = MachineHeader.on_thrown @ (11 + SYSTEM_WORDS) * W;
}

impl GoroutineHeader {
    /// A header with every word 0, but `watch`, which watches nothing.
    pub const fn new() -> Self {
        GoroutineHeader {
            stack_limit: AtomicUsize::new(0),
            stack_hi: AtomicUsize::new(0),
            stack_lo: AtomicUsize::new(0),
            sched: Sched {
                pc: AtomicUsize::new(0),
                sp: AtomicUsize::new(0),
                fp: AtomicUsize::new(0),
            },
            resume_value: AtomicUsize::new(0),
            entry: AtomicUsize::new(0),
            start_arg: AtomicUsize::new(0),
            on_exit: AtomicUsize::new(0),
            callback_depth: AtomicUsize::new(0),
            user: AtomicUsize::new(0),
            results: [const { AtomicU64::new(0) }; RESULT_WORDS],
            on_uncaught: AtomicUsize::new(0),
            machine_word: AtomicUsize::new(0),
            language: [const { AtomicUsize::new(0) }; 2],
            exception_crosses: AtomicUsize::new(0),
            entered: AtomicUsize::new(0),
            watch: AtomicUsize::new(usize::MAX),
            #[cfg(stackmark_asan)]
            fake_stack: AtomicUsize::new(0),
        }
    }
}

impl MachineHeader {
    /// A header with every word 0.
    pub const fn new() -> Self {
        MachineHeader {
            goroutine: AtomicUsize::new(0),
            system_sp: AtomicUsize::new(0),
            on_hit: AtomicUsize::new(0),
            on_leapfrog: AtomicUsize::new(0),
            host: AtomicUsize::new(0),
            run_pc: AtomicUsize::new(0),
            run_fp: AtomicUsize::new(0),
            run_saved: AtomicUsize::new(0),
            passing: AtomicUsize::new(0),
            on_watched: AtomicUsize::new(0),
            kept_vectors: AtomicUsize::new(0),
            system: [const { AtomicUsize::new(0) }; SYSTEM_WORDS],
            on_thrown: AtomicUsize::new(0),
        }
    }
}

impl Default for GoroutineHeader {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for MachineHeader {
    fn default() -> Self {
        Self::new()
    }
}
