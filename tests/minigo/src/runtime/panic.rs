//! `defer`, `panic`, `recover` and `runtime.Goexit`, as Go defines them.
//!
//! A goroutine has two chains of heap objects, whose heads are the `language` words of its header.
//! The first are the *defer frames* of its active functions with defer statements, youngest first.
//! The second are the *records* of panics and Goexits under way; the frames of `minigo.panic` and
//! `minigo.goexit` run deferred functions for them, on top of everything else. The heads are roots
//! and the links references: natives walk the chains, and a frame that will not use its object any
//! more does not keep it alive. Positions in the stack are depths: the stack may move.

use super::alloc;
use super::arguments::{Arguments, natives};
use super::fail::{self, RuntimeError};
use super::format::Any;
use super::typeinfo::TypeInfo;
use super::{host, interface};
use crate::code::Role;
use std::mem::offset_of;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What is deferred in one activation of a function.
#[repr(C)]
struct DeferFrame {
    /// The first of the deferred functions: a reference.
    head: *mut Node,
    /// The next older defer frame of the goroutine: a reference.
    link: usize,
    /// The function's stack pointer.
    depth: usize,
    /// Where it goes on with 0 to run the rest and return.
    pc: usize,
}

/// One deferred function, a heap object of two references.
#[repr(C)]
struct Node {
    function: usize,
    next: *mut Node,
}

/// Offset of a defer frame's list.
pub(crate) const DEFER_HEAD: i32 = offset_of!(DeferFrame, head) as i32;
/// Offset of a defer frame's link.
pub(crate) const DEFER_LINK: i32 = offset_of!(DeferFrame, link) as i32;

/// A panic or Goexit under way.
#[repr(C)]
struct Record {
    /// The value: a type word and, a reference, a data word.
    ty: usize,
    data: usize,
    /// The next older record of the goroutine: a reference.
    link: usize,
    /// The stack pointer of the frame that runs deferred functions for this record.
    depth: usize,
    /// Where that frame goes on, with the record as the value, to take the next deferred function.
    pc: usize,
    /// The defer frame from which the running deferred function comes, in the goroutine's chain.
    current: usize,
    goexit: bool,
    recovered: bool,
}

impl Record {
    fn value(&self) -> Any {
        // SAFETY: the words of an interface value: a leaked TypeInfo or nil, and data of that type.
        Any { ty: unsafe { (self.ty as *const TypeInfo).as_ref() }, data: self.data }
    }
}

fn defer_frame_info() -> &'static TypeInfo {
    static INFO: OnceLock<TypeInfo> = OnceLock::new();
    INFO.get_or_init(|| {
        let references = [offset_of!(DeferFrame, head), offset_of!(DeferFrame, link)];
        words_info("defer frame", size_of::<DeferFrame>(), &references)
    })
}

fn record_info() -> &'static TypeInfo {
    static INFO: OnceLock<TypeInfo> = OnceLock::new();
    INFO.get_or_init(|| {
        let references = [offset_of!(Record, data), offset_of!(Record, link)];
        words_info("panic", size_of::<Record>(), &references)
    })
}

fn words_info(name: &str, size: usize, references: &[usize]) -> TypeInfo {
    let words = (0..size / 8).map(|w| references.contains(&(8 * w))).collect();
    TypeInfo::new(name.into(), size, words, false)
}

/// Makes `to` the head of a chain. Without a barrier: it is a new object, which a cycle allocates
/// marked, or one that the old head leads to.
fn set_head(chain: &AtomicUsize, to: usize) {
    chain.store(to, Relaxed);
}

/// The chain of defer frames.
fn frames<'a>(a: &Arguments<'a>) -> &'a AtomicUsize {
    a.language(0)
}

/// The chain of records.
fn records<'a>(a: &Arguments<'a>) -> &'a AtomicUsize {
    a.language(1)
}

fn begin(a: &Arguments<'_>, ty: usize, data: usize, goexit: bool) -> usize {
    let at = host::calling_frame();
    let new = alloc::array(record_info(), 1);
    let link = records(a).load(Relaxed);
    if host::reports_stores() {
        host::store(data, new);
        host::store(link, new);
    }
    let record =
        Record { ty, data, link, depth: at.depth, pc: at.pc, current: 0, goexit, recovered: false };
    // SAFETY: a new object of this very size.
    unsafe { (new as *mut Record).write(record) };
    set_head(records(a), new);
    new
}

/// The records of the goroutine, youngest first.
///
/// # Safety
/// `first` is the head of a goroutine's chain, and the goroutine stands still.
unsafe fn chain<'r>(first: usize) -> impl Iterator<Item = &'r Record> {
    // SAFETY: the chain's head is a root and its links are references.
    std::iter::successors(unsafe { (first as *const Record).as_ref() }, |r| unsafe {
        (r.link as *const Record).as_ref()
    })
}

/// Ends the process for a panic that no deferred function has recovered: Go's text for all panics
/// under way, the traceback, status 2.
fn unrecovered(a: &Arguments<'_>) -> ! {
    // SAFETY: the current goroutine's chain.
    let all: Vec<&Record> = unsafe { chain(records(a).load(Relaxed)) }.collect();
    // The texts first, those of the youngest panic before the others: methods run for them.
    let own = |r: &&Record| interface::panic_value_text(&r.value());
    let mut texts: Vec<Option<Vec<u8>>> = all.iter().map(own).collect();
    let mut text = vec![];
    let mut signal = false;
    let mut after_panic = false;
    for r in all.iter().rev() {
        let own = texts.pop().flatten();
        if after_panic {
            text.push(b'\t');
        }
        after_panic = !r.goexit;
        if r.goexit {
            continue;
        }
        text.extend_from_slice(b"panic: ");
        // SAFETY: a record holds the words of an interface value.
        let plain = || unsafe { fail::panic_text(r.ty, r.data) };
        text.extend(own.unwrap_or_else(plain));
        text.extend_from_slice(if r.recovered { b" [recovered]\n" } else { b"\n" });
        signal |= fail::is_nil_dereference(r.ty, r.data);
    }
    if signal {
        text.extend_from_slice(
            b"[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x0]\n",
        );
    }
    fail::end(&text)
}

/// Panics that run deferred functions, or have run them all and end the process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

static MAIN_HAS_EXITED: AtomicBool = AtomicBool::new(false);

/// Whether the main goroutine has ended by `runtime.Goexit`.
pub(crate) fn main_has_exited() -> bool {
    MAIN_HAS_EXITED.load(Relaxed)
}

/// The deferred functions have run: the goroutine's oldest function returns.
fn end_goroutine(a: &Arguments<'_>) -> ! {
    let Some(start) = host::starting_frame() else {
        fail::die(
            "fatal error: runtime.Goexit called in a thread that was not created by the Go runtime",
        )
    };
    if host::is_main() {
        MAIN_HAS_EXITED.store(true, Relaxed);
    }
    // SAFETY: the current goroutine's chain.
    let aborted = unsafe { chain(records(a).load(Relaxed)) }.filter(|r| !r.goexit).count();
    PANICS.fetch_sub(aborted, Relaxed);
    set_head(records(a), 0);
    // SAFETY: the frame's own return address: its call returns. Nothing here must be released.
    unsafe { host::unwind_to(start.depth, start.pc, 0) }
}

/// A panic that native code wants to raise, on its way into the goroutine.
#[repr(C)]
pub(crate) struct Raised {
    /// Managed code finds its goroutine here.
    header: usize,
    what: What,
}

enum What {
    Error(RuntimeError),
    Value(interface::Panicked),
}

/// Panics with a run-time error, from a native. The native's frames are left, not unwound: it must
/// have released its locks.
pub(crate) fn raise(error: RuntimeError) -> ! {
    raise_this(What::Error(error))
}

/// As [`raise`], with the value of another panic.
pub(crate) fn raise_again(panicked: interface::Panicked) -> ! {
    raise_this(What::Value(panicked))
}

fn raise_this(what: What) -> ! {
    let raised = Box::new(Raised { header: host::current_header(), what });
    host::call_back_to_panic(Box::into_raw(raised) as usize)
}

pub(crate) fn return_error(a: &Arguments<'_>, error: &RuntimeError) -> usize {
    let (ty, data) = fail::error_value(error);
    a.set(0, ty);
    a.set(1, data);
    0
}

natives! {
    /// A function with defer statements begins. -> its defer frame; 0 the second time, when a panic
    /// in it has been recovered.
    fn defer_enter(a) {
        let at = host::calling_frame();
        let new = alloc::array(defer_frame_info(), 1);
        let link = frames(&a).load(Relaxed);
        if host::reports_stores() {
            host::store(link, new);
        }
        let frame = DeferFrame { head: std::ptr::null_mut(), link, depth: at.depth, pc: at.pc };
        // SAFETY: a new object of this very size.
        unsafe { (new as *mut DeferFrame).write(frame) };
        set_head(frames(&a), new);
        new
    }

    /// (how often main has asked) -> how many panics run deferred functions. It takes its time
    /// where main has asked for long.
    fn panics_running(a) {
        const PATIENCE: usize = 100;
        let running = PANICS.load(Relaxed);
        if running > 0 && a.get(0) > PATIENCE {
            host::may_wait(|| std::thread::sleep(Duration::from_millis(1)));
        }
        running
    }

    /// (type word, data word) -> a panic's record.
    fn panic_begin(a) {
        // Relaxed: main's end only waits a while for it.
        PANICS.fetch_add(1, Relaxed);
        begin(&a, a.get(0), a.get(1), false)
    }

    /// -> a Goexit's record; again when a panic in a deferred function has been recovered.
    fn goexit_begin(a) {
        begin(&a, 0, 0, true)
    }

    /// (record) -> the deferred function to call next, taken off its list.
    fn panic_next(a) {
        loop {
            let at = frames(&a).load(Relaxed);
            // SAFETY: the chain's frames and records are alive, and this goroutine alone uses them.
            unsafe {
                let record = &mut *(a.get(0) as *mut Record);
                let Some(frame) = (at as *mut DeferFrame).as_mut() else {
                    if record.goexit {
                        end_goroutine(&a)
                    }
                    unrecovered(&a)
                };
                let Some(node) = frame.head.as_ref() else {
                    set_head(frames(&a), frame.link);
                    continue;
                };
                if host::reports_stores() {
                    host::shade(node.next as usize);
                    host::shade_lost(frame.head as usize);
                }
                frame.head = node.next;
                record.current = at;
                return node.function;
            }
        }
    }

    /// (record): a deferred function has returned. If it has recovered, its frame goes on.
    fn panic_after(a) {
        // SAFETY: compiled code passes the record.
        let record = unsafe { &*(a.get(0) as *const Record) };
        if !record.recovered {
            return 0;
        }
        // SAFETY: the defer frame's deferred function has just returned: it is alive.
        let frame = unsafe { &*(record.current as *const DeferFrame) };
        // Leaving the frames of younger panics aborts these panics. A Goexit is not aborted: it
        // goes on with the next deferred function.
        // SAFETY: the current goroutine's chain.
        let left = unsafe { chain(record.link) }.take_while(|r| r.depth > frame.depth);
        let mut older = record.link;
        let mut ended = 1;
        for r in left {
            if r.goexit {
                let again = std::ptr::from_ref(r) as usize;
                set_head(records(&a), again);
                PANICS.fetch_sub(ended, Relaxed);
                // SAFETY: the call that made the record returns it again; the loop behind it uses
                // nothing else.
                unsafe { host::unwind_to(r.depth, r.pc, again) }
            }
            older = r.link;
            ended += 1;
        }
        set_head(records(&a), older);
        PANICS.fetch_sub(ended, Relaxed);
        // SAFETY: the call that made the defer frame returns 0; what follows uses nothing but the
        // frame's slots.
        unsafe { host::unwind_to(frame.depth, frame.pc, 0) }
    }

    /// `recover()`: the words of the panic's value, or nil, in the result words.
    fn recover(a) {
        a.set(0, 0);
        a.set(1, 0);
        // SAFETY: the record at the head of the chain is alive.
        let record = unsafe { (records(&a).load(Relaxed) as *mut Record).as_mut() };
        let Some(record) = record else { return 0 };
        if record.goexit || record.recovered {
            return 0;
        }
        // It counts if the caller was called by the panic itself.
        let mut first = true;
        let mut by_panic = false;
        host::each_frame(|frame, role| {
            let skip = first || role == Role::Wrapper;
            first = false;
            by_panic = !skip && role == Role::Panic && frame.depth == record.depth;
            skip
        });
        if by_panic {
            record.recovered = true;
            a.set(0, record.ty);
            a.set(1, record.data);
        }
        0
    }

    /// (which check, two words) -> the words of the error value, in the result words.
    fn fail_value(a) {
        return_error(&a, &fail::failure(&a))
    }

    /// (what `raise` has passed) -> the words of the error value, in the result words.
    fn raised_value(a) {
        // SAFETY: raise passes a box, once.
        let raised = unsafe { Box::from_raw(a.get(0) as *mut Raised) };
        match raised.what {
            What::Error(error) => return_error(&a, &error),
            What::Value(panicked) => {
                let value = panicked.value;
                a.set(0, value.ty.map_or(0, |ty| std::ptr::from_ref(ty) as usize));
                a.set(1, value.data);
                0
            }
        }
    }
}
