//! What native code that managed code has called does: park, call out and back, leave frames.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

use stackmark::stack::asm::{self, layout::ManagedFn};
use stackmark::stack::{
    CallInError, Caller, ForeignCall, Goroutine, LibCall, ScanError, UnwindToError, die_of_panic,
};

use crate::abi::{
    ATTACHED, Failure, NO_ANCHOR, NO_FRAME, NO_MEMORY, NOT_ATTACHED, NOT_FOREIGN, Out,
    SIGNAL_HANDLER, Versioned, WALK, check, code, given, make, slice, text, without_exceptions,
    write,
};
use crate::object::Ref;
use crate::runtime::{FrameTable, RuntimeBox, managed};

/// `stackmark_foreign_call`.
pub(crate) const FOREIGN_CALL_WORDS: usize = 8;
const _: () = assert!(size_of::<ForeignTable>() <= FOREIGN_CALL_WORDS * size_of::<usize>());

/// A foreign call under way.
#[repr(C)]
pub(crate) struct ForeignTable {
    /// The goroutine's address with all bits turned over; anything else is no call under way.
    tag: usize,
    call: MaybeUninit<ForeignCall<'static>>,
}

/// `stackmark_lib_call`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct LibCallTable {
    pub(crate) size: usize,
    pub(crate) function: usize,
    pub(crate) arguments: [usize; 6],
    pub(crate) result: usize,
    pub(crate) error: c_int,
    pub(crate) reserved: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for LibCallTable {}

impl From<CallInError> for Failure {
    fn from(error: CallInError) -> Failure {
        let code = match error {
            CallInError::Attached => ATTACHED,
            CallInError::NotForeign { .. } => NOT_FOREIGN,
            CallInError::NoAnchor { .. } => NO_ANCHOR,
            CallInError::SignalHandler => SIGNAL_HANDLER,
            _ => NO_MEMORY,
        };
        Failure::new(code, error)
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Failure {
        Failure::new(WALK, error)
    }
}

/// This thread's goroutine and machine.
///
/// # Errors
/// The thread runs no goroutine.
///
/// # Safety
/// The value is used within the function that asks.
pub(crate) unsafe fn caller() -> Result<Caller<'static>, Failure> {
    // SAFETY: by our contract.
    let caller = unsafe { Caller::try_current() };
    caller.ok_or_else(|| Failure::new(NOT_ATTACHED, "this thread runs no goroutine"))
}

/// As [`caller`], for functions that have no way to fail: the process ends with one line.
///
/// # Safety
/// As for [`caller`].
unsafe fn the_caller(function: &str) -> Caller<'static> {
    // SAFETY: by our contract.
    match unsafe { Caller::try_current() } {
        Some(caller) => caller,
        None => panic!("{function}: this thread runs no goroutine"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_current() -> *const Goroutine {
    // SAFETY: used here.
    let caller = unsafe { Caller::try_current() };
    caller.map_or(std::ptr::null(), |caller| &raw const *caller.goroutine())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_current_stack_top() -> usize {
    // SAFETY: reads a word of the goroutine that this thread runs.
    if stackmark_current().is_null() { 0 } else { unsafe { asm::stackmark_stack_top() } }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_call_system_address() -> usize {
    asm::call_system_address()
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_call_native_address() -> usize {
    asm::call_native_address()
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_call_native_all_address() -> usize {
    asm::call_native_all_address()
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_switch_out_address() -> usize {
    asm::switch_out_address()
}

/// # Safety
/// Called by managed code through `call_system`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_poll(needed: *mut c_void, second: usize) -> usize {
    // SAFETY: by our contract.
    unsafe { stackmark::stack::poll(needed, second) }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_park(
    publish: Option<extern "C-unwind" fn(*mut c_void)>,
    user: *mut c_void,
) -> usize {
    // SAFETY: ends with this native function; the header says that its frames own nothing.
    unsafe {
        the_caller("stackmark_park").park(|_| {
            if let Some(publish) = publish {
                without_exceptions(|| publish(user));
            }
        })
    }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_yield(value: usize) -> usize {
    // SAFETY: as for `stackmark_park`.
    unsafe { the_caller("stackmark_yield").yield_now(value) }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_foreign(
    f: Option<extern "C-unwind" fn(*mut c_void) -> usize>,
    user: *mut c_void,
) -> usize {
    // SAFETY: used within this native function.
    let caller = unsafe { the_caller("stackmark_foreign") };
    let f = f.expect("stackmark_foreign: f is NULL");
    caller.foreign(|| f(user))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_foreign_enter(out: Out<'_, ForeignTable>) -> c_int {
    make(out, "call", || {
        // SAFETY: the header asks for an end of the call within the native function.
        let caller = unsafe { caller()? };
        if caller.inside().is_none() {
            return Err(Failure::invalid("a foreign call is under way on this goroutine"));
        }
        let tag = !caller.goroutine().address();
        // SAFETY: as above.
        Ok(ForeignTable { tag, call: MaybeUninit::new(unsafe { caller.enter_foreign() }) })
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_foreign_leave(call: Out<'_, ForeignTable>) {
    let call = call.get("stackmark_foreign_leave: call");
    let call = call.expect("stackmark_foreign_leave: call is NULL");
    // SAFETY: any bits are a value of the type; the tag says whether they are a call's.
    let call = unsafe { call.assume_init_mut() };
    // SAFETY: used here.
    let caller = unsafe { the_caller("stackmark_foreign_leave") };
    assert!(
        call.tag == !caller.goroutine().address() && caller.inside().is_none(),
        "stackmark_foreign_leave: this goroutine has entered no such call, or has left it"
    );
    call.tag = 0;
    // SAFETY: by its tag, `stackmark_foreign_enter` has written it, for the goroutine that this
    // thread runs, and it was not left before.
    unsafe { call.call.assume_init_drop() };
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_call_back(
    f: Option<ManagedFn>,
    argument: usize,
    result: Out<'_, usize>,
) -> c_int {
    make(result, "result", || {
        let f = given(f, "f")?;
        // SAFETY: used within this function.
        let caller = unsafe { caller()? };
        managed(caller.runtime(), f as usize, "f")?;
        // SAFETY: as above; the header asks for managed code.
        Ok(unsafe { caller.callback(f, argument)? })
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_call_in(runtime: Ref<RuntimeBox>) -> c_int {
    code(runtime.given("runtime").and_then(|runtime| Ok(runtime.0.call_in(|_| ())?)))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_unwind_to(
    depth: usize,
    pc: usize,
    first: usize,
    second: usize,
) -> c_int {
    // SAFETY: used within this function.
    let caller = unsafe { caller() };
    let caller = caller.and_then(|caller| managed(caller.runtime(), pc, "pc").map(|()| caller));
    // SAFETY: the header asks for a landing pad.
    let error = caller.map(|caller| unsafe { caller.unwind_to(depth, pc, [first, second]) });
    code(Err(match error {
        Ok(UnwindToError::Walk(error)) => error.into(),
        Ok(error) => Failure::new(NO_FRAME, error),
        Err(failure) => failure,
    }))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_leave_to(frame: usize) -> c_int {
    code((|| {
        // SAFETY: used within this function.
        let caller = unsafe { caller()? };
        // SAFETY: the header asks for the jump, and for frames that own nothing.
        unsafe { caller.leave_to(frame) }.map_err(Failure::invalid)
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_frames(
    visit: Option<extern "C" fn(*mut c_void, *const FrameTable) -> c_int>,
    user: *mut c_void,
) -> c_int {
    code((|| {
        let visit = given(visit, "visit")?;
        // SAFETY: used within this function.
        let caller = unsafe { caller()? };
        caller.frames(|frame| match visit(user, &FrameTable::new(&frame)) {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })?;
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_note_stack_write(from: usize, to: usize) -> c_int {
    code((|| {
        // SAFETY: used within this function.
        let caller = unsafe { caller()? };
        if from > to {
            let text = format_args!("the words from {from:#x} to {to:#x} are none");
            return Err(Failure::invalid(text));
        }
        Ok(caller.note_stack_write(from..to)?)
    })())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_lib_call(
    function: usize,
    arguments: *const usize,
    count: usize,
    call: *mut LibCallTable,
) -> c_int {
    code((|| {
        given((function != 0).then_some(()), "function")?;
        if count > 6 {
            return Err(Failure::invalid(format_args!("{count} arguments are more than 6")));
        }
        // Before the function is called: afterwards a failure would lose what it has done.
        // SAFETY: the header asks for such a struct.
        unsafe { check(call, "call")? };
        // SAFETY: the header asks for a function with such parameters, and for such arrays.
        let done = unsafe {
            let arguments = slice(arguments, count, "arguments")?;
            caller()?.lib_call(function, arguments)
        };
        let LibCall { arguments, result, error, .. } = done;
        let size = size_of::<LibCallTable>();
        let table = LibCallTable { size, function, arguments, result, error, reserved: 0 };
        // SAFETY: the header asks for such a struct.
        unsafe { write(call, "call", table) }
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_die(runtime: Ref<RuntimeBox>, message: *const c_char) {
    // SAFETY: the header asks for a string.
    let message = unsafe { text(message) };
    match runtime.get("stackmark_die: runtime") {
        Some(runtime) => die_of_panic(&runtime.0, &message),
        None => panic!("{message}"),
    }
}
