//! Calls between managed and native code.

use super::threads::Threads;
use super::world::{fatal, world};
use crate::cgo::library::Hooks;
use crate::runtime::{fail, foreign};
use stackmark::stack::Caller;
use stackmark_cranelift::RunsOn;
use std::sync::atomic::Ordering;

/// Calls back a managed function with the address of words of which the first is the current
/// goroutine's header.
pub(crate) fn call_back(f: usize, argument: usize) {
    // SAFETY: the address of a managed function that the compiler made for this. The native holds
    // no address in the stack.
    let called = unsafe {
        let f = std::mem::transmute::<usize, stackmark_asm::ManagedFn>(f);
        let caller = Caller::current();
        caller.foreign(|| caller.callback(f, argument))
    };
    if let Err(error) = called {
        fatal(&error)
    }
}

/// Calls back the managed function that panics with what `raised` says.
pub(crate) fn call_back_to_panic(raised: usize) -> ! {
    let f = world().raise.load(Ordering::Relaxed);
    // SAFETY: the address of the managed function that the compiler made for this; its frames are
    // left, not returned from.
    unsafe {
        let f = std::mem::transmute::<usize, stackmark_asm::ManagedFn>(f);
        let caller = Caller::current();
        match caller.foreign(|| caller.callback(f, raised)) {
            Ok(_) => unreachable!("a panic does not return"),
            Err(error) => fatal(&error),
        }
    }
}

/// Calls `f`, which may wait: other goroutines go on meanwhile. The native ends here, and holds no
/// reference.
pub(crate) fn may_wait(f: impl FnOnce()) {
    // SAFETY: used here alone.
    unsafe { Caller::current() }.foreign(f);
}

/// Calls C code at `wrapper` with `block`; other goroutines go on meanwhile.
///
/// # Errors
/// The text of the exception that the C code has thrown.
pub(crate) fn foreign(wrapper: usize, block: usize) -> Result<(), String> {
    // SAFETY: the address of a wrapper that the C compiler has made, with this type.
    let f = unsafe { std::mem::transmute::<usize, unsafe extern "C-unwind" fn(usize)>(wrapper) };
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    // SAFETY: the block is as the wrapper expects it.
    let called = caller.catch_native(|| caller.foreign(|| unsafe { f(block) }));
    called.map_err(|exception| exception.to_string())
}

/// Calls the managed function at `thunk` from native code, on whatever thread.
pub(crate) fn call_in(thunk: usize, block: usize) {
    // The thread may be one of C's own. Frames may be left here without a return.
    let _awake = world().threads.as_ref().map(Threads::awake);
    enter(thunk, block);
}

/// The same, also for what a goroutine starts with.
pub(super) fn enter(thunk: usize, block: usize) {
    // SAFETY: the address of a managed function that the compiler made for this.
    let f = unsafe { std::mem::transmute::<usize, stackmark_asm::ManagedFn>(thunk) };
    attach_if_new();
    let called = world().runtime.call_in(|caller| {
        let incoming = [caller.goroutine().address(), block];
        // SAFETY: the function takes the address of these two words; native code keeps no address
        // in the stack.
        unsafe { caller.callback(f, incoming.as_ptr() as usize) }
    });
    match called {
        Ok(Ok(_)) => {}
        Ok(Err(error)) | Err(error) => fail::die(&format!("fatal error: {error}")),
    }
}

/// Whether goroutines are threads, on whose own stacks they run.
pub(crate) fn on_threads() -> bool {
    world().threads.is_some()
}

/// The stacks that the program runs on.
pub(crate) fn runs_on() -> RunsOn {
    match on_threads() {
        // SAFETY: `call_in`, by which threads begin to run managed code, attaches them.
        true => unsafe { RunsOn::native_stacks() },
        false => RunsOn::default(),
    }
}

/// Attaches the calling thread, if it has no goroutine and is to be one.
fn attach_if_new() {
    // SAFETY: used here alone.
    if !on_threads() || unsafe { Caller::try_current() }.is_some() {
        return;
    }
    // SAFETY: the program is compiled for such stacks.
    if let Err(error) = unsafe { world().runtime.attach_native_stack() } {
        fail::die(&format!("fatal error: {error}"));
    }
}

/// What native code calls to learn where the goroutine's stack ends.
pub(crate) fn hooks() -> Hooks {
    Hooks {
        stack_top: stackmark_asm::stackmark_stack_top as *const () as usize,
        export: foreign::export as *const () as usize,
    }
}
