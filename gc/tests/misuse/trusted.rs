//! What the misuse tests trust: managed code that keeps the contracts, and `spawn` of it. The only
//! unsafe code here.

#![allow(unsafe_code)]

use stackmark::stack::{Caller, Goroutine, Runtime, asm};
use stackmark::unwind::{Code, Function, Region, Safepoint};
use std::ffi::c_void;
use std::sync::Arc;

// A frame with a frame pointer that calls `argument[1](argument[0], argument[2], argument[3])`,
// which is `call_system` and what it is to call, and returns its result. A callback begins before
// it, with `argument` in the first register.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl misuse_callback",
    "misuse_callback:",
    ".cfi_startproc",
    "mov rsi, rdi",
    ".globl misuse_entry",
    "misuse_entry:",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rdi, [rsi]",
    "mov rax, [rsi + 8]",
    "mov rdx, [rsi + 24]",
    "mov rsi, [rsi + 16]",
    "call rax",
    ".globl misuse_return",
    "misuse_return:",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".globl misuse_end",
    "misuse_end:",
    "nop"
);

// The same for arm64.
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl misuse_callback",
    "misuse_callback:",
    ".cfi_startproc",
    "mov x1, x0",
    ".globl misuse_entry",
    "misuse_entry:",
    "stp x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "mov x29, sp",
    ".cfi_def_cfa_register x29",
    "ldr x0, [x1]",
    "ldr x9, [x1, #8]",
    "ldr x2, [x1, #24]",
    "ldr x1, [x1, #16]",
    "blr x9",
    ".globl misuse_return",
    "misuse_return:",
    "ldp x29, x30, [sp], #16",
    ".cfi_def_cfa sp, 0",
    "ret",
    ".cfi_endproc",
    ".globl misuse_end",
    "misuse_end:",
    "nop"
);

// The same for i686, whose arguments lie in memory.
#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    ".globl misuse_callback",
    "misuse_callback:",
    ".cfi_startproc",
    "mov eax, [esp + 4]",
    "jmp 2f",
    ".globl misuse_entry",
    "misuse_entry:",
    "mov eax, [esp + 8]",
    "2: push ebp",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset ebp, -8",
    "mov ebp, esp",
    ".cfi_def_cfa_register ebp",
    "sub esp, 24",
    "mov ecx, [eax]",
    "mov [esp], ecx",
    "mov ecx, [eax + 8]",
    "mov [esp + 4], ecx",
    "mov ecx, [eax + 12]",
    "mov [esp + 8], ecx",
    "call [eax + 4]",
    ".globl misuse_return",
    "misuse_return:",
    "mov esp, ebp",
    "pop ebp",
    ".cfi_def_cfa esp, 4",
    "ret",
    ".cfi_endproc",
    ".globl misuse_end",
    "misuse_end:",
    "nop"
);

/// Bytes of the frame at its call.
const FRAME: u32 = if cfg!(target_arch = "x86") { 32 } else { 16 };

unsafe extern "C-unwind" {
    fn misuse_callback(argument: usize) -> usize;
    fn misuse_entry();
    fn misuse_return();
    fn misuse_end();
}

/// Managed code that does nothing.
extern "C-unwind" fn nothing(_goroutine: usize, _argument: usize) {}

type Native = Box<dyn Fn() + Send + Sync>;

unsafe extern "C-unwind" fn trampoline(native: *mut c_void, _b: usize) -> usize {
    // SAFETY: spawn_native passes a leaked one.
    let native = unsafe { &*(native as *const Native) };
    native();
    0
}

pub(crate) fn register(code: &Code) {
    let start = misuse_callback as *const () as usize;
    let len = misuse_end as *const () as usize - start;
    let name = String::from("misuse_entry");
    code.register(Region {
        name: "misuse".into(),
        start,
        len,
        functions: vec![Function { name, start, len, ..Function::default() }],
        safepoints: vec![Safepoint {
            return_address: misuse_return as *const () as usize,
            cfa_offset: FRAME,
            slots: vec![],
        }],
        ..Region::default()
    })
    .expect("code of this image");
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
    // SAFETY: the function keeps the contracts: one safepoint, no references.
    unsafe { runtime.spawn(misuse_entry as *const () as usize, call_of(native)) }.expect("memory")
}

/// The argument of managed code that calls `native`, once.
fn call_of(native: impl Fn() + Send + Sync + 'static) -> usize {
    let native: Native = Box::new(native);
    let native: &'static Native = Box::leak(Box::new(native));
    let words: &'static [usize; 4] = Box::leak(Box::new([
        trampoline as *const () as usize,
        asm::call_system_address(),
        std::ptr::from_ref(native) as usize,
        0,
    ]));
    words.as_ptr() as usize
}

/// [`Caller::callback`] in the running foreign call, of managed code that calls `native`, once.
pub(crate) fn call_back(native: impl Fn() + Send + Sync + 'static) {
    // SAFETY: the function keeps the contracts: one safepoint, no references. Native code here
    // keeps no address in the goroutine's stack.
    unsafe { Caller::current().callback(misuse_callback, call_of(native)) }.expect("called back");
}

/// A goroutine of managed code that polls, once.
pub(crate) fn spawn_polling(runtime: &Runtime) -> Arc<Goroutine> {
    let poll: asm::layout::NativeFn = stackmark::stack::poll;
    let words: &'static [usize; 4] =
        Box::leak(Box::new([poll as *const () as usize, asm::call_system_address(), 0, 0]));
    // SAFETY: as in spawn_native.
    unsafe { runtime.spawn(misuse_entry as *const () as usize, words.as_ptr() as usize) }
        .expect("memory")
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
