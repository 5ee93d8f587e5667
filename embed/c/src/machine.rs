//! Machines: threads that run goroutines.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use stackmark::stack::{
    AttachError, Caller, DetachError, Entered, Goroutine, Inside, Left, Machine, alarm,
    report_native_overflow,
};

use crate::abi::{
    ATTACHED, Failure, INVALID, NO_MEMORY, NOT_ATTACHED, OUTSIDE, Out, SIGNAL_HANDLER, SYSTEM,
    code, given, make,
};
use crate::numbers::{LEFT_EXITED, LEFT_PARKED, LEFT_YIELDED};
use crate::object::Ref;
use crate::runtime::{RuntimeBox, give, owned};

/// `stackmark_machine`.
#[derive(Debug)]
pub(crate) struct MachineBox {
    /// Before the machine, so that it goes first.
    entered: RefCell<Option<Entered<'static>>>,
    /// A goroutine runs, or has parked and not left the thread yet.
    running: Cell<bool>,
    machine: Box<Machine>,
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Failure {
        let code = match error {
            AttachError::AlreadyAttached => ATTACHED,
            _ => NO_MEMORY,
        };
        Failure::new(code, error)
    }
}

impl From<DetachError> for Failure {
    fn from(error: DetachError) -> Failure {
        let code = match error {
            DetachError::NotAttached => NOT_ATTACHED,
            DetachError::SignalHandler => SIGNAL_HANDLER,
            _ => INVALID,
        };
        Failure::new(code, error)
    }
}

thread_local! {
    /// The machine of this thread, or null.
    static MACHINE: Cell<*const MachineBox> = const { Cell::new(std::ptr::null()) };
}

/// A proof that this thread counts as running: as a goroutine's native code, or between
/// `stackmark_inside_enter` and `stackmark_inside_leave`.
///
/// # Errors
/// It does not.
pub(crate) fn inside() -> Result<Inside<'static>, Failure> {
    // SAFETY: used within the native function that calls this.
    let of_goroutine = unsafe { Caller::try_current() }.and_then(|caller| caller.inside());
    let of_machine = || {
        // SAFETY: the thread's own machine, which is not detached during the call.
        let machine = unsafe { MACHINE.get().as_ref() }?;
        machine.entered.borrow().as_ref().map(Entered::inside)
    };
    let text = "this thread does not count as running: it is in a foreign call, or it is outside";
    of_goroutine.or_else(of_machine).ok_or_else(|| Failure::new(OUTSIDE, text))
}

/// As [`inside`], for functions that have no way to fail: the process ends with one line.
pub(crate) fn need_inside(function: &str) {
    if let Err(failure) = inside() {
        panic!("{function}: {failure}");
    }
}

/// The machine, if it is the calling thread's. It may be gone, or not be one: it is compared only.
fn own<'m>(machine: *const MachineBox) -> Result<&'m MachineBox, Failure> {
    // As where other objects are given.
    alarm::check();
    given((!machine.is_null()).then_some(()), "machine")?;
    if !std::ptr::eq(MACHINE.get(), machine) {
        return Err(Failure::invalid("machine: it is another thread's, or is detached"));
    }
    // SAFETY: the thread's own machine, which is not detached during the call.
    Ok(unsafe { &*machine })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_attach(runtime: Ref<RuntimeBox>, out: Out<'_, *const MachineBox>) -> c_int {
    make(out, "out", || {
        let machine = Box::new(Machine::attach(&runtime.given("runtime")?.0)?);
        let machine = Box::into_raw(Box::new(MachineBox {
            entered: RefCell::default(),
            running: Cell::new(false),
            machine,
        }));
        MACHINE.set(machine);
        Ok(machine.cast_const())
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_detach(machine: *mut MachineBox) -> c_int {
    code((|| {
        let own = own(machine)?;
        if own.running.get() {
            return Err(Failure::invalid("a goroutine runs on this machine"));
        }
        own.entered.take();
        MACHINE.set(std::ptr::null());
        // SAFETY: made by `stackmark_attach`, and this thread's, so it is given back once.
        drop(unsafe { Box::from_raw(machine) });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_attach_native_stack(runtime: Ref<RuntimeBox>) -> c_int {
    code((|| {
        let runtime = &runtime.given("runtime")?.0;
        // SAFETY: the header says what managed code is for such stacks.
        unsafe { runtime.attach_native_stack() }.map_err(Failure::from)
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_detach_native_stack(runtime: Ref<RuntimeBox>) -> c_int {
    code((|| {
        let runtime = &runtime.given("runtime")?.0;
        // SAFETY: each function of the header looks for its caller anew. A foreign call that
        // `stackmark_foreign_enter` has begun is one of native code that managed code has called.
        unsafe { runtime.detach_native_stack() }.map_err(Failure::from)
    })())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn stackmark_run(
    machine: *const MachineBox,
    goroutine: *const Goroutine,
    again: Out<'_, *const Goroutine>,
    left: Out<'_, c_int>,
) -> c_int {
    make(left, "left", || {
        let (machine, again) = (own(machine)?, again.given("again")?);
        if machine.running.get() {
            return Err(Failure::invalid("this machine runs a goroutine already"));
        }
        // SAFETY: the header asks for an owned reference. Last: a failure takes none.
        let goroutine = unsafe { owned(goroutine)? };
        machine.running.set(true);
        let left = machine.machine.run(goroutine);
        machine.running.set(false);
        let (left, goroutine) = match left {
            Left::Exited => (LEFT_EXITED, std::ptr::null()),
            Left::Parked => (LEFT_PARKED, std::ptr::null()),
            Left::Yielded(goroutine) => (LEFT_YIELDED, give(goroutine)),
        };
        again.write(goroutine);
        Ok(left)
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_inside_enter(machine: *const MachineBox) -> c_int {
    code((|| {
        let own = own(machine)?;
        let mut place = own.entered.borrow_mut();
        if place.is_some() {
            return Err(Failure::new(INVALID, "this thread counts as running already"));
        }
        // SAFETY: the machine is boxed, and goes after what borrows it.
        let machine: &'static Machine = unsafe { &*std::ptr::from_ref::<Machine>(&own.machine) };
        *place = Some(machine.enter());
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_inside_leave(machine: *const MachineBox) -> c_int {
    code((|| {
        let entered = own(machine)?.entered.take();
        let text = "this thread does not count as running";
        entered.map(drop).ok_or_else(|| Failure::new(OUTSIDE, text))
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_report_native_overflow() -> c_int {
    code(report_native_overflow().map_err(|error| Failure::new(SYSTEM, error)))
}
