//! From a pc to its caller and its live slots.
//!
//! Managed code is registered in a [`Code`] with its CFI and its safepoints. That also makes it
//! known to gdb and to the system's unwinder. CFI is compiled once into packed rules, each
//! safepoint into one table entry. A [`Walker`] goes from frame to frame by them, within bounds,
//! over live memory or a copy of it. Look-ups take no lock, a walk allocates nothing, and both may
//! be done in signal handlers. Every failure is a typed error that names the pc; nothing is guessed
//! or skipped.
//!
//! ```
//! use stackmark_unwind::{
//!     Code, FrameKind, Function, MemorySnapshot, NativeRule, Region, Registers, Safepoint, Walker,
//! };
//! # use gimli::write::{Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame};
//! # use gimli::write::{EndianVec, FrameDescriptionEntry, FrameTable};
//! # use gimli::{Encoding, Format, LittleEndian};
//! # use stackmark_unwind::{FRAME_POINTER, RETURN_ADDRESS, STACK_POINTER};
//! # let word = size_of::<usize>() as i32;
//! # let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: word as u8 };
//! # let mut cie = CommonInformationEntry::new(encoding, 1, -word as i8, RETURN_ADDRESS);
//! # cie.add_instruction(Cfi::Cfa(STACK_POINTER, 2 * word));
//! # cie.add_instruction(Cfi::Offset(FRAME_POINTER, -2 * word));
//! # cie.add_instruction(Cfi::Offset(RETURN_ADDRESS, -word));
//! # let mut table = FrameTable::default();
//! # let cie = table.add_cie(cie);
//! # let mut fde = FrameDescriptionEntry::new(Address::Constant(0x1000), 0x40);
//! # fde.add_instruction(4, Cfi::CfaOffset(4 * word));
//! # table.add_fde(cie, fde);
//! # let mut section = EhFrame::from(EndianVec::new(LittleEndian));
//! # table.write_eh_frame(&mut section).unwrap();
//! # let eh_frame = section.0.into_vec();
//! // One function at 0x1000 that calls something at 0x1018. Its frame has four words, of which the
//! // second is a reference.
//! const WORD: usize = size_of::<usize>();
//! let cfa_offset = 4 * WORD as u32;
//! let code = Code::new();
//! code.register(Region {
//!     name: "example".into(),
//!     start: 0x1000,
//!     len: 0x40,
//!     eh_frame, // as the compiler wrote it
//!     functions: vec![Function {
//!         name: "f".into(),
//!         start: 0x1000,
//!         len: 0x40,
//!         ..Function::default()
//!     }],
//!     safepoints: vec![Safepoint {
//!         return_address: 0x101c,
//!         cfa_offset,
//!         slots: vec![WORD as u32],
//!     }],
//!     max_frame: None,
//!     ..Region::default()
//! })?;
//! code.register_native(0x2000..0x2010, FrameKind::Entry, NativeRule::End)?;
//!
//! // A stack on which f stands in that call, called by the entry.
//! let stack = MemorySnapshot { start: 0x7000, words: vec![0, 0xabc0, 0, 0x2008] };
//! let snapshot = code.snapshot();
//! let registers = Registers { pc: 0x101c, sp: 0x7000, fp: 0 };
//! let mut walker = Walker::new(&snapshot, &stack, (), registers, stack.bounds());
//! let f = walker.next_frame()?.unwrap();
//! assert_eq!(snapshot.function(f.pc - 1).unwrap().name, "f");
//! assert_eq!(f.slots().collect::<Vec<_>>(), [0x7000 + WORD]);
//! assert_eq!(walker.next_frame()?.unwrap().kind, FrameKind::Entry);
//! assert!(walker.next_frame()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`Unwinder`] goes over any stack, for example that of a profiled thread, by the CFI of the
//! process's images:
//!
//! ```no_run
//! use stackmark_unwind::{Code, RegisterSet, LiveMemory, Unwinder, RuleCache};
//!
//! let code = Code::new();
//! code.refresh_images(); // again after each `dlopen`; costs next to nothing otherwise
//! let mut cache = RuleCache::new(); // one for each thread that traces
//! let context = RegisterSet::capture(); // or `RegisterSet::interrupted` in a signal handler
//! // SAFETY: a part of this thread's stack, in which it is mapped.
//! let stack = unsafe { LiveMemory::new(context.sp()..context.sp() + 4096) };
//! let snapshot = code.snapshot();
//! let mut trace = Unwinder::new(&snapshot, &mut cache, stack, (), context);
//! let here = trace.next_frame()?.expect("this very function");
//! assert_eq!(here.pc, context.pc());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_debug_implementations)]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod arch;
mod cfi;
mod code;
mod frame;
mod image;
mod jit_debug;
mod managed_image;
mod memory;
mod os;
mod os_context;
mod os_frames;
mod os_images;
mod pool;
mod rcu;
mod region;
mod registers;
mod return_addresses;
mod rule;
mod rule_cache;
mod rule_table;
mod safepoint;
mod safepoint_table;
mod saved_registers;
pub mod stack_map;
mod sync;
mod thread_stacks;
mod undescribed;
mod unwind_info;
mod unwinder;
mod walk_error;
mod walker;

// For the collector's marking and for the models of stacks, which have no other need of the
// architecture.
#[doc(hidden)]
pub use arch::{FRAME_POINTER, PC, RETURN_ADDRESS, STACK_POINTER, prefetch};
pub use cfi::CfiError;
pub use code::{
    Code, CodeError, FunctionRef, ManagedImage, NativeRule, RegionId, RegisterImageError, Snapshot,
};
pub use frame::{BarrierRefusal, Frame, FrameKind};
pub use image::{Image, ImageError};
// For the words that debuggers read of a runtime.
#[doc(hidden)]
pub use jit_debug::debugger_descriptor;
pub use managed_image::ManagedImageError;
pub use memory::{LiveMemory, Memory, MemorySnapshot};
pub use pool::{PooledCache, RuleCachePool};
pub use region::{
    Announce, Function, FunctionUnwindInfo, Region, RegionError, SourceLines, Vectors,
};
pub use registers::{RegisterSet, Registers};
pub use return_addresses::ReturnAddresses;
pub use rule::{ExpressionError, Recovered, Recovery, Unsupported, UnwindRule};
pub use rule_cache::RuleCache;
pub use safepoint::Safepoint;
pub use safepoint_table::SafepointRef;
pub use thread_stacks::ThreadStacks;
pub use undescribed::{FramePointers, UndescribedFrames};
pub use unwind_info::UnwindInfoError;
pub use unwinder::{CallFrame, Unwinder};
pub use walk_error::WalkError;
pub use walker::Walker;
