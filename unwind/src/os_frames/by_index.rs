//! By the exception-handling ABI of 32-bit Arm. libgcc reads no CFI there, and takes no tables
//! either. It asks the C library for the table of the image that holds a pc,
//! `__gnu_Unwind_Find_exidx`. That function is defined here again: the linker exports it from a
//! program, since libgcc refers to it, and the loader prefers the program's.
//!
//! For managed code it answers with a table of one entry, which names a personality. The
//! personality finds the frame's caller by the code's CFI. It enters no landing pads: managed code
//! has none that such an unwinder could enter.
//!
//! In a library that a program loads, the function is not found, and managed code stays unknown to
//! the system's unwinder.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use gimli::{Arm, Register};

use crate::arch::{PC, RETURN_ADDRESS, STACK_POINTER, words_of};
use crate::cfi::Section;
use crate::memory::Memory;
use crate::region::Region;
use crate::registers::RegisterSet;
use crate::rule::Recovered;

/// A function of managed code, by its start.
#[derive(Debug)]
struct Function {
    end: usize,
    section: Arc<[u8]>,
    /// Where in the section its entry lies.
    entry: usize,
}

/// All functions. As libgcc's own records are behind a lock, so are these: a signal handler that
/// unwinds while its thread registers code waits for ever.
static FUNCTIONS: RwLock<BTreeMap<usize, Function>> = RwLock::new(BTreeMap::new());
/// How many there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// CFI that the system's unwinder knows for as long as this lives.
#[derive(Debug)]
pub(crate) struct SystemFrames {
    starts: Vec<usize>,
}

impl SystemFrames {
    /// Registers a copy of the region's CFI, which has been read through without error. `None` if
    /// its pointers are not absolute, or if it has none.
    pub(crate) fn register(region: &Region) -> Option<SystemFrames> {
        if region.eh_frame_address != 0 || region.eh_frame.is_empty() {
            return None;
        }
        Table::fill();
        let section: Arc<[u8]> = region.eh_frame.as_slice().into();
        let entries = Section::absolute(&section).entries().unwrap_or_default();
        let mut functions = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner);
        let mut starts = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            let function =
                Function { end: entry.end as usize, section: section.clone(), entry: entry.offset };
            functions.insert(entry.start as usize, function);
            starts.push(entry.start as usize);
        }
        COUNT.store(functions.len(), Relaxed);
        Some(SystemFrames { starts })
    }
}

impl Drop for SystemFrames {
    fn drop(&mut self) {
        let mut functions = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner);
        for start in &self.starts {
            functions.remove(start);
        }
        COUNT.store(functions.len(), Relaxed);
    }
}

/// Calls `f` with the function that holds the pc, if it is one of these.
fn with_function<R>(pc: usize, f: impl FnOnce(&Function) -> Option<R>) -> Option<R> {
    // Relaxed: what runs on this thread, or below it, has been registered before.
    if COUNT.load(Relaxed) == 0 {
        return None;
    }
    let functions = FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner);
    let (_, function) = functions.range(..=pc).next_back()?;
    if pc < function.end { f(function) } else { None }
}

/// Two tables of one entry each, and what both name: a word that names the personality. All of them
/// are distances in 31 bits from the words themselves, so they are the same for all code: libgcc
/// asks only that the entry's function begins at the pc or below.
struct Table {
    /// For code above this table.
    above: [AtomicU32; 2],
    /// For code below it, down to 1 GiB.
    below: [AtomicU32; 2],
    personality: AtomicU32,
}

static TABLE: Table = Table {
    above: [AtomicU32::new(0), AtomicU32::new(0)],
    below: [AtomicU32::new(0), AtomicU32::new(0)],
    personality: AtomicU32::new(0),
};

/// How far such a distance leads down.
const REACH: usize = 1 << 30;

impl Table {
    /// Fills in the distances.
    fn fill() {
        // Relaxed: each thread that finds a function has come behind the lock that it was put
        // under.
        let put = |word: &AtomicU32, to: usize| {
            let distance = to.wrapping_sub(word.as_ptr() as usize) as u32;
            word.store(distance & 0x7fff_ffff, Relaxed);
        };
        let personality = TABLE.personality.as_ptr() as usize;
        put(&TABLE.personality, find_caller as *const () as usize);
        put(&TABLE.above[0], TABLE.above.as_ptr() as usize);
        put(&TABLE.above[1], personality);
        put(&TABLE.below[0], lowest());
        put(&TABLE.below[1], personality);
        // A reference, so that the function is linked.
        std::hint::black_box(__gnu_Unwind_Find_exidx as *const ());
    }
}

/// The lowest address that the lower table reaches.
fn lowest() -> usize {
    (TABLE.below.as_ptr() as usize).saturating_sub(REACH)
}

/// Finds the table of unwinding for a pc, and how many entries it has.
///
/// # Safety
/// Called by the unwinder, with the address of a word.
#[unsafe(no_mangle)]
unsafe extern "C" fn __gnu_Unwind_Find_exidx(pc: usize, count: *mut c_int) -> *const c_void {
    type Find = unsafe extern "C" fn(usize, *mut c_int) -> *const c_void;
    let table = with_function(pc, |_| {
        if pc >= TABLE.above.as_ptr() as usize {
            Some(TABLE.above.as_ptr())
        } else {
            (pc >= lowest()).then_some(TABLE.below.as_ptr())
        }
    });
    // SAFETY: our contract. The next function of this name is the C library's.
    unsafe {
        if let Some(table) = table {
            *count = 1;
            return table.cast();
        }
        let next = libc::dlsym(libc::RTLD_NEXT, c"__gnu_Unwind_Find_exidx".as_ptr());
        if next.is_null() {
            return std::ptr::null();
        }
        std::mem::transmute::<*mut c_void, Find>(next)(pc, count)
    }
}

const URC_CONTINUE_UNWIND: c_int = 8;
const URC_FAILURE: c_int = 9;
const UVRSC_CORE: c_int = 0;
const UVRSC_VFP: c_int = 1;
const UVRSD_UINT32: c_int = 0;
const UVRSD_DOUBLE: c_int = 5;

unsafe extern "C" {
    fn _Unwind_VRS_Get(
        context: *mut c_void,
        class: c_int,
        register: u32,
        representation: c_int,
        value: *mut usize,
    ) -> c_int;
    fn _Unwind_VRS_Set(
        context: *mut c_void,
        class: c_int,
        register: u32,
        representation: c_int,
        value: *mut usize,
    ) -> c_int;
    fn _Unwind_VRS_Pop(
        context: *mut c_void,
        class: c_int,
        registers: u32,
        representation: c_int,
    ) -> c_int;
}

/// The personality of all managed code: goes on to the frame's caller, in every phase.
///
/// # Safety
/// Called by the unwinder.
unsafe extern "C" fn find_caller(
    _state: c_int,
    _exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    // SAFETY: our contract.
    unsafe { step(context) }.map_or(URC_FAILURE, |()| URC_CONTINUE_UNWIND)
}

/// The memory of the stack that is being unwound.
struct Stack;

impl Memory for Stack {
    fn read(&self, address: usize) -> Option<usize> {
        // SAFETY: the CFI of a frame on this thread's stack names words of that frame.
        (address.is_multiple_of(size_of::<usize>()))
            .then(|| unsafe { (address as *const usize).read() })
    }
}

/// # Safety
/// As for [`find_caller`].
unsafe fn step(context: *mut c_void) -> Option<()> {
    let get = |register: Register| {
        let mut word = 0;
        // SAFETY: our contract; there is such a register.
        unsafe {
            let number = register.0.into();
            _Unwind_VRS_Get(context, UVRSC_CORE, number, UVRSD_UINT32, &mut word);
        }
        word
    };
    let set = |register: Register, mut word: usize| {
        // SAFETY: our contract; there is such a register.
        unsafe {
            let number = register.0.into();
            _Unwind_VRS_Set(context, UVRSC_CORE, number, UVRSD_UINT32, &mut word);
        }
    };
    let pc = get(PC) & !1;
    let at = pc.wrapping_sub(1);
    let mut registers = RegisterSet::unknown();
    for register in (0..PC.0).map(Register) {
        registers.set(register, get(register));
    }
    registers.set(PC, pc);
    registers.set(RETURN_ADDRESS, pc);
    let recovery = with_function(at, |function| {
        let section = Section::absolute(&function.section);
        let rule = section.rule_at(function.entry, at as u64).ok()??;
        rule.evaluate(&registers, &Stack).ok().filter(|recovery| !recovery.oldest)
    })?;
    let word = |register| match recovery.register(register) {
        Recovered::At(address) => Stack.read(address),
        Recovered::Value(value) => Some(value),
        Recovered::Same => Some(get(register)),
        Recovered::Unknown => None,
    };
    let (sp, return_address) = (word(STACK_POINTER)?, word(RETURN_ADDRESS)?);
    // All words are read before the stack pointer is set to where a double lies.
    let general =
        [4, 5, 6, 7, 8, 9, 10, 11].map(|number| (Register(number), word(Register(number))));
    for (i, double) in (8..16).zip((Arm::D8.0..=Arm::D15.0).map(Register)) {
        if let Some([low, _]) = words_of(double)
            && let Recovered::At(address) = recovery.register(low)
        {
            set(STACK_POINTER, address);
            // SAFETY: our contract. The register is the processor's own from here on, or until
            // phase 1 ends: nothing here has a number in it.
            unsafe { _Unwind_VRS_Pop(context, UVRSC_VFP, i << 16 | 1, UVRSD_DOUBLE) };
        }
    }
    for (register, word) in general {
        if let Some(word) = word {
            set(register, word);
        }
    }
    set(STACK_POINTER, sp);
    set(RETURN_ADDRESS, return_address);
    set(PC, return_address);
    Some(())
}
