//! What debuggers read of a process, live or in a core file: [`stackmark_debug_info`].
//!
//! This file is the documentation of that interface. A reader needs no layout of Rust and no
//! debugging information of the library. It reads one plain struct, [`DebugInfo`], and follows
//! words from there. All words have the size and byte order of the machine.
//!
//! 1. Find the struct: by the symbol `stackmark_debug_info`, or by its magic bytes in the writable
//!    data of the program and its shared objects. Its word `here` is its own address, which tells
//!    it from copies. It is 0 as long as the process has made no runtime.
//! 2. Refuse a `version` that you do not know. A word beyond `size` is one that this version of the
//!    library does not have: new words come at the end, and leave the version.
//! 3. `runtimes` is the address of the first runtime, or 0. A runtime's next one stands at
//!    `runtime_next`, its first goroutine at `runtime_goroutines`, both offsets from its address.
//! 4. A goroutine is a record, and its next one stands at `goroutine_next`. The list has dead
//!    records, too. The other `goroutine_` words are offsets from the record's address; see each.
//! 5. A goroutine is *on a thread* if its status is Running or Foreign, or if its word at
//!    `goroutine_callbacks` is not 0: then the thread's own stack is the whole truth. A walk from
//!    the thread's registers by CFI crosses both stacks and ends in `entry_begin..entry_end`, with
//!    its stack pointer within the goroutine's stack. If it does not end there, the thread is just
//!    taking the goroutine up or laying it down.
//!
//!    If the word at `goroutine_on_thread` is not 0, its stack is the thread's own. Then it is on
//!    that thread always, and the walk ends where the thread began.
//! 6. All other goroutines stand still, as do those of the last sentence. Their walk begins with
//!    the registers of `goroutine_pc`, `goroutine_sp` and `goroutine_fp`. The pc counts as a return
//!    address.
//!
//! Managed code made at run time is described by gdb's JIT interface, whose descriptor is at
//! `jit_descriptor`: a list of ELF objects in memory, each with symbols, `.eh_frame` and, where the
//! embedder has given lines, `.debug_line`. Regions that are not
//! [announced](stackmark_unwind::Announce::debugger) are not in it.
//!
//! A return slot may hold a *stub's* address, in `pool_begin..pool_end`: a return barrier. It
//! stands for the return address in the table, the word at
//! `table + (address - pool_begin) / stub_bytes * word size`. The CFI of the stubs says the same,
//! with one more frame that is none of the program's.

use crate::goroutine::Goroutine;
use crate::protocol::StatusWord;
use stackmark_asm::{self as asm, barrier, layout};
use std::mem::offset_of;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

macro_rules! debug_info {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        /// The description of a process for debuggers. A word that begins with the name of a
        /// record is an offset in bytes from the record's address; the others are addresses,
        /// unless they say otherwise.
        #[repr(C)]
        #[derive(Debug)]
        pub struct DebugInfo {
            /// [`DebugInfo::MAGIC`].
            pub magic: [u8; 16],
            /// [`DebugInfo::VERSION`].
            pub version: u32,
            /// The size of this struct in bytes.
            pub size: u32,
            /// The address of this struct; 0 before the first runtime. Written last, Release.
            pub here: AtomicUsize,
            /// The first runtime, or 0.
            pub runtimes: AtomicPtr<ListedRuntime>,
            $($(#[$doc])* pub $name: AtomicUsize,)*
        }

        impl DebugInfo {
            const fn empty() -> DebugInfo {
                DebugInfo {
                    magic: DebugInfo::MAGIC,
                    version: DebugInfo::VERSION,
                    size: size_of::<DebugInfo>() as u32,
                    here: AtomicUsize::new(0),
                    runtimes: AtomicPtr::new(std::ptr::null_mut()),
                    $($name: AtomicUsize::new(0),)*
                }
            }

            /// Writes all words but the list.
            fn fill(&self) {
                // Relaxed: debuggers stop the process, and `here` comes last.
                $(self.$name.store($value, Ordering::Relaxed);)*
                self.here.store(std::ptr::from_ref(self) as usize, Ordering::Release);
            }
        }
    };
}

debug_info! {
    /// gdb's `__jit_debug_descriptor`.
    jit_descriptor = stackmark_unwind::debugger_descriptor();
    /// The frames of calls out that stand on a goroutine's stack.
    system_call_begin = asm::system_call_range().start;
    /// Their end.
    system_call_end = asm::system_call_range().end;
    /// The frames of callbacks that stand on a goroutine's stack.
    callback_begin = asm::callback_range().start;
    /// Their end.
    callback_end = asm::callback_range().end;
    /// The oldest frame of every goroutine.
    entry_begin = asm::entry_range().start;
    /// Its end.
    entry_end = asm::entry_range().end;
    /// The pc of a call out's frame on the thread's own stack.
    native_return = asm::native_return_pc();
    /// The stubs of return barriers.
    pool_begin = barrier::pool().start;
    /// Their end.
    pool_end = barrier::pool().end;
    /// The saved return addresses.
    table = barrier::table().start;
    /// The size of a stub in bytes.
    stub_bytes = barrier::pool().len() / (barrier::table().len() / size_of::<usize>());
    /// The next runtime, or 0.
    runtime_next = offset_of!(ListedRuntime, next);
    /// The runtime's number.
    runtime_id = offset_of!(ListedRuntime, id);
    /// The runtime's first record of a goroutine, or 0.
    runtime_goroutines = offset_of!(ListedRuntime, goroutines);
    /// The next record of the same runtime, or 0.
    goroutine_next = Goroutine::NEXT_OFFSET;
    /// The goroutine's number, 64 bits.
    goroutine_id = Goroutine::ID_OFFSET;
    /// Its status, 32 bits, of which the highest is to be ignored: 0 Runnable, 1 Running, 3 Parked,
    /// 4 Dead. Running means Foreign, in native code that may wait, if one of the next two words is
    /// not 0.
    goroutine_status = Goroutine::STATUS_OFFSET + StatusWord::WORD_OFFSET;
    /// See `goroutine_status`; 32 bits.
    goroutine_foreign = Goroutine::STATUS_OFFSET + StatusWord::FOREIGN_OFFSET;
    /// See `goroutine_status`; 32 bits.
    goroutine_held = Goroutine::STATUS_OFFSET + StatusWord::HELD_OFFSET;
    /// The system's number of the thread that the goroutine is on, or was on last; 32 bits. 0: it
    /// has not run yet.
    goroutine_thread = Goroutine::THREAD_OFFSET;
    /// One past the highest address of its stack.
    goroutine_stack_hi = layout::G_STACK_HI;
    /// The lowest address of its stack.
    goroutine_stack_lo = layout::G_STACK_LO;
    /// Where it goes on.
    goroutine_pc = layout::G_SCHED_PC;
    /// Its stack pointer there.
    goroutine_sp = layout::G_SCHED_SP;
    /// Its frame pointer there.
    goroutine_fp = layout::G_SCHED_FP;
    /// How many callbacks are nested on its stack.
    goroutine_callbacks = layout::G_CALLBACK_DEPTH;
    /// The function that it has begun with.
    goroutine_entry = layout::G_ENTRY;
    /// The frames by which native code enters managed code on a thread's own stack.
    enter_begin = asm::enter_range().start;
    /// Their end.
    enter_end = asm::enter_range().end;
    /// The frames by which managed code calls native code there.
    call_native_begin = asm::call_native_range().start;
    /// Their end.
    call_native_end = asm::call_native_range().end;
    /// Not 0: the goroutine's stack is its thread's own; 32 bits.
    goroutine_on_thread = Goroutine::ON_THREAD_OFFSET;
}

impl DebugInfo {
    /// The first bytes.
    pub const MAGIC: [u8; 16] = *b"stackmark debug\0";
    /// Changes when a word changes its meaning or its place.
    pub const VERSION: u32 = 1;
}

/// For debuggers: see the module.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "debuggers know it by this name")]
pub static stackmark_debug_info: DebugInfo = DebugInfo::empty();

/// Held while the list of runtimes changes.
static LIST: Mutex<()> = Mutex::new(());

/// A runtime as debuggers see it.
#[repr(C)]
#[derive(Debug)]
pub struct ListedRuntime {
    next: AtomicPtr<ListedRuntime>,
    id: u64,
    goroutines: AtomicPtr<Goroutine>,
}

/// A runtime is in the list for debuggers as long as this lives.
#[derive(Debug)]
pub(crate) struct Listing(Box<ListedRuntime>);

impl Listing {
    /// Lists the runtime with this number.
    pub(crate) fn new(id: u64) -> Listing {
        let info = &stackmark_debug_info;
        let _list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        if info.here.load(Ordering::Relaxed) == 0 {
            info.fill();
        }
        let first = info.runtimes.load(Ordering::Relaxed);
        let listed = Box::new(ListedRuntime {
            next: AtomicPtr::new(first),
            id,
            goroutines: AtomicPtr::default(),
        });
        // Release: a debugger that stops the process at any instruction finds the record whole.
        info.runtimes.store((&raw const *listed).cast_mut(), Ordering::Release);
        Listing(listed)
    }

    /// Lists a new record of a goroutine. The caller holds the lock of the registry's records, so
    /// that there is one such call at a time. The record stays in place until this is dropped.
    pub(crate) fn add(&self, goroutine: &Goroutine) {
        let list = &self.0.goroutines;
        goroutine.set_next_record(list.load(Ordering::Relaxed));
        // Release: as in `new`.
        list.store(std::ptr::from_ref(goroutine).cast_mut(), Ordering::Release);
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let _list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (&raw const *self.0).cast_mut();
        let mut link = &stackmark_debug_info.runtimes;
        loop {
            let at = link.load(Ordering::Relaxed);
            if at == own {
                link.store(self.0.next.load(Ordering::Relaxed), Ordering::Release);
                return;
            }
            // SAFETY: the list has live records, since each leaves it before it is freed, and it
            // does not change while the lock is held. This one is in it.
            link = unsafe { &(*at).next };
        }
    }
}
