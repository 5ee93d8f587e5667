//! Native routines of the language. What they hold over an allocation, they hold by handles.

use crate::vm::binding::{GLOBALS, TestVm, header};
use mmtk::memory_manager as mm;
use mmtk::plan::BarrierSelector;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::Slot;
use mmtk::{AllocationSemantics, Mutator};
use stackmark_mmtk::stack::asm::layout::GoroutineHeader;
use stackmark_mmtk::stack::handles::Handle;
use stackmark_mmtk::stack::{Caller, Goroutine, Inside, Word};
use stackmark_mmtk::{FromStack, StackHost, StackSlot, machine};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};

/// The largest object that goes to MMTk's default space.
const LARGE: usize = 8 << 10;

/// What a program has returned from its `main`.
pub(crate) static RESULT: (Mutex<Option<usize>>, Condvar) = (Mutex::new(None), Condvar::new());
/// What it has printed.
pub(crate) static PRINTED: Mutex<Vec<i64>> = Mutex::new(Vec::new());
static CHANNELS: Mutex<Vec<Channel>> = Mutex::new(Vec::new());

/// Goroutines send references, and wait for them.
#[derive(Default)]
struct Channel {
    sent: VecDeque<Handle>,
    waiting: VecDeque<Arc<Goroutine>>,
}

/// The end of the program, with one line: there is no exception in this language.
fn fail(what: &str) -> ! {
    eprintln!("the program fails: {what}");
    std::process::exit(5)
}

fn object(address: usize) -> ObjectReference {
    // SAFETY: an address is only looked at.
    let object = ObjectReference::from_raw_address(unsafe { Address::from_usize(address) });
    object.unwrap_or_else(|| fail("nil has no parts"))
}

/// The words of an object. Good until the next allocation.
fn words(address: usize) -> *mut usize {
    object(address).to_raw_address().to_mut_ptr()
}

/// # Safety
/// Called by native code that managed code has called; the mutator is used by one caller at a time.
#[expect(clippy::mut_from_ref, reason = "one native routine at a time uses it")]
unsafe fn mutator<'c>(caller: &'c Caller<'_>) -> &'c mut Mutator<TestVm> {
    // SAFETY: our contract.
    unsafe { machine::mutator::<TestVm>(caller) }
}

/// That this thread runs, as it does in a native routine.
fn inside<'c>(caller: &Caller<'c>) -> Inside<'c> {
    caller.inside().expect("not in a foreign call")
}

/// A new object, all zeros but for its header.
fn make(caller: &Caller<'_>, bytes: usize, references: usize) -> usize {
    let semantics =
        if bytes > LARGE { AllocationSemantics::Los } else { AllocationSemantics::Default };
    // SAFETY: used within this function.
    let mutator = unsafe { mutator(caller) };
    let at = mm::alloc(mutator, bytes, 8, 0, semantics);
    if at.is_zero() {
        fail("out of memory");
    }
    // SAFETY: memory for the object.
    unsafe {
        std::ptr::write_bytes(at.to_mut_ptr::<u8>(), 0, bytes);
        at.store(header(bytes, references));
    }
    mm::post_alloc(mutator, object(at.as_usize()), bytes, semantics);
    at.as_usize()
}

/// `(_, _)`: makes an object that stays. MarkCompact of mmtk 0.33 fails where it finds no other.
pub(crate) unsafe extern "C-unwind" fn keep_one(_: *mut c_void, _: usize) -> usize {
    if GLOBALS[0].load(Relaxed) == 0 {
        // SAFETY: within this function.
        GLOBALS[0].store(make(&unsafe { Caller::current() }, 16, 0), Relaxed);
    }
    0
}

/// `(bytes, references)`
pub(crate) unsafe extern "C-unwind" fn allocate(bytes: *mut c_void, references: usize) -> usize {
    // SAFETY: within this function.
    make(&unsafe { Caller::current() }, bytes as usize, references)
}

/// `(n, 1: references or 0: numbers)`
pub(crate) unsafe extern "C-unwind" fn array(n: *mut c_void, of_references: usize) -> usize {
    let n = n as usize;
    if n > 60_000 {
        fail("an array has at most 60000 elements");
    }
    // SAFETY: within this function.
    make(&unsafe { Caller::current() }, 8 + 8 * n, n * of_references)
}

/// `(goroutine, object)`, and in the goroutine's result words the offset and the value: stores a
/// reference.
pub(crate) unsafe extern "C-unwind" fn store(goroutine: *mut c_void, at: usize) -> usize {
    // SAFETY: the header of the goroutine that calls.
    let goroutine = unsafe { &*goroutine.cast::<GoroutineHeader>() };
    let [offset, value] = [1, 2].map(|word| goroutine.results[word].load(Relaxed) as usize);
    let target = object(at);
    // SAFETY: a reference of the object.
    let slot = unsafe { StackSlot::plain(at + offset) };
    let referent = (value != 0).then(|| object(value));
    // SAFETY: within this function.
    let caller = unsafe { Caller::current() };
    // SAFETY: as above.
    let mutator = unsafe { mutator(&caller) };
    mm::object_reference_write_pre(mutator, target, slot, referent);
    match referent {
        Some(referent) => slot.store(referent),
        None => slot.clear(),
    }
    let plan = TestVm::stacks().mmtk().get_plan();
    if plan.constraints().barrier != BarrierSelector::SATBBarrier {
        mm::object_reference_write_post(mutator, target, slot, referent);
    }
    0
}

/// A text of these bytes: a word with their number, and they.
fn text(caller: &Caller<'_>, parts: &[Handle], fixed: &[u8]) -> usize {
    let of = |part: &Handle| {
        let text = words(part.get(inside(caller)));
        // SAFETY: a text, which stays where it is until the next allocation.
        unsafe { std::slice::from_raw_parts(text.add(2).cast::<u8>(), *text.add(1)) }
    };
    let len = fixed.len() + parts.iter().map(|part| of(part).len()).sum::<usize>();
    let made = make(caller, (16 + len).next_multiple_of(8), 0);
    // SAFETY: the new text.
    let mut to = unsafe {
        *words(made).add(1) = len;
        words(made).add(2).cast::<u8>()
    };
    for bytes in parts.iter().map(of).chain([fixed]) {
        // SAFETY: as much room as all of them need.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            to = to.add(bytes.len());
        }
    }
    made
}

/// `(a string's bytes, their number)`: a text in the program.
pub(crate) unsafe extern "C-unwind" fn literal(bytes: *mut c_void, len: usize) -> usize {
    // SAFETY: what the compiler has leaked.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    // SAFETY: within this function.
    text(&unsafe { Caller::current() }, &[], bytes)
}

/// `(text, text)`
pub(crate) unsafe extern "C-unwind" fn join(a: *mut c_void, b: usize) -> usize {
    // SAFETY: within this function.
    let caller = unsafe { Caller::current() };
    let handle = |text| TestVm::stacks().handles().create(inside(&caller), text);
    text(&caller, &[handle(a as usize), handle(b)], &[])
}

/// `(text, index)`: the byte.
pub(crate) unsafe extern "C-unwind" fn byte(at: *mut c_void, index: usize) -> usize {
    let text = words(at as usize);
    // SAFETY: a text, and the index is looked at.
    unsafe {
        if index >= *text.add(1) {
            fail("an index is out of range");
        }
        usize::from(*text.add(2).cast::<u8>().add(index))
    }
}

/// `(text, _)`: how many bytes it has.
pub(crate) unsafe extern "C-unwind" fn bytes(at: *mut c_void, _: usize) -> usize {
    // SAFETY: a text.
    unsafe { *words(at as usize).add(1) }
}

/// `(object, _)`: a weak reference to it.
pub(crate) unsafe extern "C-unwind" fn weak(referent: *mut c_void, _: usize) -> usize {
    // SAFETY: within this function.
    let caller = unsafe { Caller::current() };
    let kept = TestVm::stacks().handles().create(inside(&caller), referent as usize);
    let made = make(&caller, 16, 0);
    // SAFETY: the slot of the new weak reference.
    unsafe { *words(made).add(1) = kept.get(inside(&caller)) };
    mm::add_weak_candidate(TestVm::stacks().mmtk(), object(made));
    made
}

/// `(weak reference, _)`: its referent, or nil.
pub(crate) unsafe extern "C-unwind" fn strong(reference: *mut c_void, _: usize) -> usize {
    // SAFETY: the slot of a weak reference.
    let referent = unsafe { *words(reference as usize).add(1) };
    if referent != 0 {
        // SAFETY: within this function.
        let caller = unsafe { Caller::current() };
        // A collection that marks beside the program must know of the object.
        TestVm::stacks().load_weak_reference(inside(&caller), object(referent));
    }
    referent
}

/// `(entry, argument)`: a goroutine.
pub(crate) unsafe extern "C-unwind" fn go(entry: *mut c_void, argument: usize) -> usize {
    let runtime = TestVm::stacks().runtime();
    // SAFETY: compiled code that keeps the contracts, and takes a reference.
    let goroutine = unsafe { runtime.spawn(entry as usize, Word::Reference(argument)) };
    match goroutine {
        Ok(goroutine) => runtime.schedule(goroutine),
        Err(error) => fail(&error.to_string()),
    }
    0
}

pub(crate) unsafe extern "C-unwind" fn channel(_: *mut c_void, _: usize) -> usize {
    let mut channels = CHANNELS.lock().expect("no panic");
    channels.push(Channel::default());
    channels.len() - 1
}

/// `(channel, object)`
pub(crate) unsafe extern "C-unwind" fn send(channel: *mut c_void, value: usize) -> usize {
    // SAFETY: within this function.
    let caller = unsafe { Caller::current() };
    if value == 0 {
        fail("nil is no message");
    }
    let value = TestVm::stacks().handles().create(inside(&caller), value);
    let waiting = {
        let mut channels = CHANNELS.lock().expect("no panic");
        let channel = &mut channels[channel as usize];
        channel.sent.push_back(value);
        channel.waiting.pop_front()
    };
    if let Some(goroutine) = waiting {
        TestVm::stacks().runtime().ready(goroutine, Word::Plain(0));
    }
    0
}

/// `(channel, _)`: what was sent, or 0 if the caller has waited and is to look again.
pub(crate) unsafe extern "C-unwind" fn receive(channel: *mut c_void, _: usize) -> usize {
    // SAFETY: within this function.
    let caller = unsafe { Caller::current() };
    let mut channels = CHANNELS.lock().expect("no panic");
    let own = &mut channels[channel as usize];
    if let Some(value) = own.sent.pop_front() {
        return value.get(inside(&caller));
    }
    // SAFETY: the guard is given up, and nothing else is owned.
    unsafe { caller.park(move |goroutine| channels[channel as usize].waiting.push_back(goroutine)) }
}

pub(crate) unsafe extern "C-unwind" fn print(number: *mut c_void, _: usize) -> usize {
    PRINTED.lock().expect("no panic").push(number as i64);
    0
}

pub(crate) unsafe extern "C-unwind" fn out_of_range(_: *mut c_void, _: usize) -> usize {
    fail("an index is out of range, or nil has no parts")
}

/// `(the line, _)`
pub(crate) unsafe extern "C-unwind" fn check_failed(line: *mut c_void, _: usize) -> usize {
    fail(&format!("the check in line {} does not hold", line as usize))
}

pub(crate) unsafe extern "C-unwind" fn finish(result: *mut c_void, _: usize) -> usize {
    *RESULT.0.lock().expect("no panic") = Some(result as usize);
    RESULT.1.notify_all();
    0
}
