//! What the misuse tests trust: managed code that keeps the contracts, and `spawn` of it. The only
//! unsafe code here.

#![allow(unsafe_code)]

use compiler::{Compiler, FuncId, INT, Program, Start};
use stackmark::stack::{Caller, Goroutine, Runtime, asm};
use stackmark::unwind::{Code, Region};
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

/// Managed code that does nothing.
extern "C-unwind" fn nothing(_goroutine: usize, _argument: usize) {}

type Native = Box<dyn Fn() + Send + Sync>;

unsafe extern "C-unwind" fn trampoline(native: *mut c_void, _b: usize) -> usize {
    // SAFETY: spawn_native passes a leaked one.
    let native = unsafe { &*(native as *const Native) };
    native();
    0
}

struct Managed {
    program: Program,
    region: Region,
    /// Calls the [`Native`] that its argument is.
    calls: FuncId,
    /// The same, in a callback. Its argument is two words: the goroutine and the `Native`.
    calls_back: FuncId,
    /// Polls.
    polls: FuncId,
}

fn managed() -> &'static Managed {
    static MANAGED: OnceLock<Managed> = OnceLock::new();
    MANAGED.get_or_init(|| {
        let mut compiler = Compiler::default();
        let calls = compiler.function("calls", &[INT, INT], Start::Goroutine, |f| {
            let [native, zero] = [f.param(1), f.int(0)];
            let result = f.leaf(trampoline, native, zero);
            f.return_(result);
        });
        let calls_back = compiler.function("calls_back", &[INT], Start::Callback, |f| {
            let [native, zero] = [f.load(f.param(0), 1), f.int(0)];
            let result = f.leaf(trampoline, native, zero);
            f.return_(result);
        });
        let polls = compiler.function("polls", &[INT, INT], Start::Goroutine, |f| {
            f.poll_always();
            f.return_(f.param(1));
        });
        let (program, region) = compiler.place();
        Managed { program, region, calls, calls_back, polls }
    })
}

pub(crate) fn register(code: &Code) {
    code.register(managed().region.clone()).expect("correct maps");
}

/// A goroutine of managed code that does nothing.
pub(crate) fn spawn(runtime: &Runtime) -> Arc<Goroutine> {
    // SAFETY: the function makes no calls and uses less than the guard.
    unsafe { runtime.spawn(nothing as *const () as usize, 0) }.expect("memory")
}

/// A goroutine of managed code that calls the native function `native`, once.
pub(crate) fn spawn_native(
    runtime: &Runtime,
    native: impl Fn() + Send + Sync + 'static,
) -> Arc<Goroutine> {
    spawn_compiled(runtime, managed().calls, leaked(native))
}

fn leaked(native: impl Fn() + Send + Sync + 'static) -> usize {
    let native: Native = Box::new(native);
    Box::into_raw(Box::new(native)) as usize
}

fn spawn_compiled(runtime: &Runtime, function: FuncId, argument: usize) -> Arc<Goroutine> {
    // SAFETY: the compiler's code keeps the contracts.
    unsafe { runtime.spawn(managed().program.address(function), argument) }.expect("memory")
}

/// [`Caller::callback`] in the running foreign call, of managed code that calls `native`, once.
pub(crate) fn call_back(native: impl Fn() + Send + Sync + 'static) {
    let caller = caller();
    let words = [caller.goroutine().address(), leaked(native)];
    let function = managed().program.address(managed().calls_back);
    // SAFETY: the compiler's code keeps the contracts, and is a function of one word. Native code
    // here keeps no address in the goroutine's stack.
    unsafe {
        let function = std::mem::transmute::<usize, asm::ManagedFn>(function);
        caller.callback(function, words.as_ptr() as usize).expect("called back");
    }
}

/// A goroutine of managed code that polls, once.
pub(crate) fn spawn_polling(runtime: &Runtime) -> Arc<Goroutine> {
    spawn_compiled(runtime, managed().polls, 0)
}

/// [`Caller::foreign`] in the running native function.
pub(crate) fn foreign<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: used within the native function.
    unsafe { Caller::current() }.foreign(f)
}

/// [`Caller::park`] in the running native function, whose frames own nothing.
pub(crate) fn park(publish: impl FnOnce(Arc<Goroutine>)) {
    // SAFETY: the attempts' frames own nothing that matters at the end of their process.
    unsafe { Caller::current().park(publish) };
}

/// Whether this thread runs a goroutine.
pub(crate) fn has_caller() -> bool {
    // SAFETY: not used.
    unsafe { Caller::try_current() }.is_some()
}

/// As [`with_caller`], kept for longer than the native function: what hangs on it must notice.
pub(crate) fn caller() -> Caller<'static> {
    // SAFETY: as above.
    unsafe { Caller::current() }
}

/// Calls `f` with the caller of the running native function.
pub(crate) fn with_caller<R>(f: impl FnOnce(Caller<'_>) -> R) -> R {
    f(caller())
}

/// Calls `f` in the child of a fork, and returns its status. It is killed with this process.
#[cfg(unix)]
pub(crate) fn in_child(f: impl FnOnce()) -> i32 {
    // SAFETY: the parent goes on as before. What the child may call is what is tried.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a system call on the child alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        // SAFETY: it ends the child, without what the parent does at its end.
        unsafe { libc::_exit(if result.is_ok() { 0 } else { 101 }) };
    }
    let mut status = 0;
    // SAFETY: the child of this process, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child has ended with {status:#x}");
    libc::WEXITSTATUS(status)
}
