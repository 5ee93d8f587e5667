//! A heap that C gives as a table of functions.

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::ops::Range;

use stackmark::heap::{CycleRight, Heap, HeapCounts, HeapOwner, Marked, Object};

use crate::abi::{Failure, User, Versioned, given};

/// `stackmark_heap_functions`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapFunctions {
    pub(crate) size: usize,
    pub(crate) user: *mut c_void,
    pub(crate) resolve: Option<extern "C" fn(*mut c_void, usize) -> usize>,
    pub(crate) mark: Option<extern "C" fn(*mut c_void, usize) -> c_int>,
    pub(crate) is_marked: Option<extern "C" fn(*mut c_void, usize) -> c_int>,
    pub(crate) object_size: Option<extern "C" fn(*mut c_void, usize) -> usize>,
    pub(crate) trace:
        Option<extern "C" fn(*mut c_void, usize, *mut usize, usize, *mut usize, usize) -> usize>,
    pub(crate) begin_cycle: Option<extern "C" fn(*mut c_void)>,
    pub(crate) end_cycle: Option<extern "C" fn(*mut c_void, u64, u64)>,
    pub(crate) finish_sweep: Option<extern "C" fn(*mut c_void)>,
    pub(crate) set_trigger: Option<extern "C" fn(*mut c_void, usize)>,
    pub(crate) allocated_since_cycle: Option<extern "C" fn(*mut c_void) -> usize>,
    pub(crate) counts: Option<extern "C" fn(*mut c_void, *mut HeapCountsTable)>,
    pub(crate) prefetch: Option<extern "C" fn(*mut c_void, usize) -> c_int>,
    pub(crate) release: Option<extern "C" fn(*mut c_void, usize)>,
    pub(crate) keep_marks: Option<extern "C" fn(*mut c_void, c_int) -> c_int>,
    pub(crate) clear_marks: Option<extern "C" fn(*mut c_void)>,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for HeapFunctions {}

/// `stackmark_heap_counts`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeapCountsTable {
    pub(crate) size: usize,
    pub(crate) allocated_bytes: u64,
    pub(crate) objects_marked: u64,
    pub(crate) objects_swept: u64,
    pub(crate) live_bytes: u64,
    pub(crate) resident_bytes: u64,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for HeapCountsTable {}

/// The functions that a heap must have, and those that it may have.
pub(crate) struct TableHeap {
    user: User,
    resolve: extern "C" fn(*mut c_void, usize) -> usize,
    mark: extern "C" fn(*mut c_void, usize) -> c_int,
    is_marked: extern "C" fn(*mut c_void, usize) -> c_int,
    object_size: extern "C" fn(*mut c_void, usize) -> usize,
    trace: extern "C" fn(*mut c_void, usize, *mut usize, usize, *mut usize, usize) -> usize,
    begin_cycle: extern "C" fn(*mut c_void),
    end_cycle: extern "C" fn(*mut c_void, u64, u64),
    finish_sweep: extern "C" fn(*mut c_void),
    set_trigger: extern "C" fn(*mut c_void, usize),
    allocated_since_cycle: extern "C" fn(*mut c_void) -> usize,
    counts: extern "C" fn(*mut c_void, *mut HeapCountsTable),
    prefetch: Option<extern "C" fn(*mut c_void, usize) -> c_int>,
    release: Option<extern "C" fn(*mut c_void, usize)>,
    keep_marks: Option<extern "C" fn(*mut c_void, c_int) -> c_int>,
    clear_marks: Option<extern "C" fn(*mut c_void)>,
    owner: HeapOwner,
}

impl TableHeap {
    /// # Errors
    /// A function is missing.
    pub(crate) fn new(table: &HeapFunctions) -> Result<TableHeap, Failure> {
        if table.keep_marks.is_some() && table.clear_marks.is_none() {
            let text =
                "clear_marks is NULL, and keep_marks is not: a major cycle clears kept marks";
            return Err(Failure::invalid(text));
        }
        Ok(TableHeap {
            user: User(table.user),
            resolve: given(table.resolve, "resolve")?,
            mark: given(table.mark, "mark")?,
            is_marked: given(table.is_marked, "is_marked")?,
            object_size: given(table.object_size, "object_size")?,
            trace: given(table.trace, "trace")?,
            begin_cycle: given(table.begin_cycle, "begin_cycle")?,
            end_cycle: given(table.end_cycle, "end_cycle")?,
            finish_sweep: given(table.finish_sweep, "finish_sweep")?,
            set_trigger: given(table.set_trigger, "set_trigger")?,
            allocated_since_cycle: given(table.allocated_since_cycle, "allocated_since_cycle")?,
            counts: given(table.counts, "counts")?,
            prefetch: table.prefetch,
            release: table.release,
            keep_marks: table.keep_marks,
            clear_marks: table.clear_marks,
            owner: HeapOwner::new(),
        })
    }

    fn user(&self) -> *mut c_void {
        self.user.pointer()
    }
}

/// Words that one call of `trace` may give.
const BATCH: usize = 256;

// SAFETY: the header asks of the functions what the trait asks.
unsafe impl Heap for TableHeap {
    fn resolve(&self, word: usize) -> Option<Object> {
        let object = NonZeroUsize::new((self.resolve)(self.user(), word))?;
        // SAFETY: the header asks for an object of this heap, or 0.
        Some(unsafe { Object::from_address(object) })
    }

    fn prefetch(&self, word: usize) -> bool {
        word != 0 && self.prefetch.is_none_or(|f| f(self.user(), word) != 0)
    }

    fn mark(&self, object: Object, _right: &CycleRight) -> bool {
        (self.mark)(self.user(), object.address()) != 0
    }

    fn is_marked(&self, object: Object) -> bool {
        (self.is_marked)(self.user(), object.address()) != 0
    }

    fn size(&self, object: Object) -> usize {
        (self.object_size)(self.user(), object.address())
    }

    fn trace(
        &self,
        object: Object,
        range: Range<usize>,
        visit: &mut impl FnMut(usize),
        _right: &CycleRight,
    ) -> usize {
        let mut words = [0; BATCH];
        let (mut from, to) = (range.start, range.end);
        while from < to {
            let before = from;
            let (at, place) = (object.address(), words.as_mut_ptr());
            let count = (self.trace)(self.user(), at, &mut from, to, place, BATCH);
            assert!(
                count <= BATCH && (from > before || count == 0),
                "the heap's trace gave {count} words of {BATCH} and went from {before} to {from}"
            );
            words[..count].iter().for_each(|word| visit(*word));
            if from <= before {
                break;
            }
        }
        self.size(object)
    }

    fn begin_cycle(&self, _right: &CycleRight) {
        (self.begin_cycle)(self.user());
    }

    fn end_cycle(&self, marked: Marked, _right: &CycleRight) {
        (self.end_cycle)(self.user(), marked.objects, marked.bytes);
    }

    fn keep_marks(&self, keep: bool, _right: &CycleRight) -> bool {
        self.keep_marks.map_or(!keep, |f| f(self.user(), keep.into()) != 0)
    }

    fn clear_marks(&self, _right: &CycleRight) {
        if let Some(f) = self.clear_marks {
            f(self.user());
        }
    }

    fn finish_sweep(&self, _right: &CycleRight) {
        (self.finish_sweep)(self.user());
    }

    fn release(&self, keep: usize, _right: &CycleRight) {
        if let Some(f) = self.release {
            f(self.user(), keep);
        }
    }

    fn set_trigger(&self, bytes: usize, _right: &CycleRight) {
        (self.set_trigger)(self.user(), bytes);
    }

    fn owner(&self) -> &HeapOwner {
        &self.owner
    }

    fn allocated_since_cycle(&self) -> usize {
        (self.allocated_since_cycle)(self.user())
    }

    fn counts(&self) -> HeapCounts {
        let mut table =
            HeapCountsTable { size: size_of::<HeapCountsTable>(), ..HeapCountsTable::default() };
        (self.counts)(self.user(), &mut table);
        HeapCounts {
            allocated_bytes: table.allocated_bytes,
            objects_marked: table.objects_marked,
            objects_swept: table.objects_swept,
            live_bytes: table.live_bytes,
            resident_bytes: table.resident_bytes,
        }
    }
}
