//! What profilers need beside walks: a hook for frames without a rule, the bounds of stacks, caches
//! for handlers, the ends of coroutines.
// Native code for armv7 has no CFI.
#![cfg(not(target_arch = "arm"))]
// Windows has no signals: tests/windows.rs stops threads.
#![cfg(not(windows))]

#[path = "support/arch.rs"]
mod arch;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/this_thread.rs"]
mod this_thread;
#[path = "support/walk.rs"]
mod walk;

use std::cell::{Cell, RefCell};

use programs::Directory;
use stackmark_unwind::{
    Code, FramePointers, LiveMemory, Memory, MemorySnapshot, RegisterSet, RuleCachePool,
    ThreadStacks, UndescribedFrames, Unwinder, WalkError,
};
use walk::walk;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Frames with frame records, between compiled code, as a JIT without CFI has them.
#[test]
fn frames_without_a_rule_are_walked_by_their_frame_pointers() {
    let directory = Directory::new("jit");
    // A section of code of its own, without CFI.
    let mut text = String::from(".text\n");
    for i in 0..5 {
        let (next, size) = (i + 1, 16 * i * i + 16);
        let body = if cfg!(target_arch = "x86_64") {
            let call = if i < 4 { format!("call j{next}") } else { "call *%rdi".into() };
            format!(
                "push %rbp\nmov %rsp, %rbp\nsub ${size}, %rsp\nand $-16, %rsp\n{call}\n\
                 leave\nret"
            )
        } else if cfg!(target_arch = "x86") {
            let call = if i < 4 { format!("call j{next}") } else { "call *8(%ebp)".into() };
            format!(
                "push %ebp\nmov %esp, %ebp\nsub ${size}, %esp\nand $-16, %esp\n\
                 sub $12, %esp\npush 8(%ebp)\n{call}\nleave\nret"
            )
        } else {
            let call = if i < 4 { format!("bl j{next}") } else { "blr x0".into() };
            format!(
                "stp x29, x30, [sp, #-16]!\nmov x29, sp\nsub sp, sp, #{size}\n{call}\n\
                 mov sp, x29\nldp x29, x30, [sp], #16\nret"
            )
        };
        text.push_str(&format!(".globl j{i}\n.type j{i}, @function\nj{i}:\n{body}\n"));
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    directory.write("a.s", &text);
    let Some(library) = directory.load(&["-Wl,-Bsymbolic", "a.s"]) else { return };
    extern "C" fn look() {
        let code = Code::new();
        code.refresh_images();
        let stacks = ThreadStacks::current().unwrap();
        let context = RegisterSet::capture();
        // SAFETY: this thread's stacks, from this frame on.
        let memory = unsafe { stacks.memory(context.sp()) };
        let (without, end) = walk(&code, &memory, context, None);
        let pc = without.last().unwrap().return_address;
        assert_eq!(end, Err(WalkError::NoRule { pc }));
        let (frames, end) = walk(&code, &memory, context, Some(&FramePointers));
        assert_eq!(end, Ok(()));
        let by_hook: Vec<bool> = frames.iter().map(|frame| frame.undescribed).collect();
        let first = without.len();
        assert!(by_hook[first..first + 5].iter().all(|by_hook| *by_hook), "{by_hook:?}");
        assert_eq!(by_hook.iter().filter(|by_hook| **by_hook).count(), 5);
        assert!(frames.len() > first + 8, "and on, through this test's frames");
        // A closure serves as well, and is asked for such frames alone.
        let asked = RefCell::new(Vec::new());
        let closure = |frame: &RegisterSet, memory: &dyn Memory| {
            asked.borrow_mut().push(frame.pc());
            FramePointers.caller(frame, memory)
        };
        let hook: &dyn UndescribedFrames = &closure;
        assert_eq!(walk(&code, &memory, context, Some(hook)).0.len(), frames.len());
        let pcs: Vec<usize> = frames[first..first + 5].iter().map(|frame| frame.pc).collect();
        assert_eq!(*asked.borrow(), pcs);
        LOOKS.set(LOOKS.get() + 1);
    }
    // SAFETY: the function takes a callback.
    let first = unsafe {
        std::mem::transmute::<usize, extern "C" fn(extern "C" fn())>(library.address("j0"))
    };
    first(look);
    assert_eq!(LOOKS.get(), 1);
}

/// How often the coroutine has checked its walk.
static CHECKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

extern "C" fn coroutine() {
    let code = Code::new();
    code.refresh_images();
    let context = RegisterSet::capture();
    let system = this_thread::system_frames();
    let here = context.sp();
    // SAFETY: 4 KiB beyond the coroutine's stack are mapped, as its caller sees to.
    let memory = unsafe { LiveMemory::new(here..here + 4096) };
    let (frames, end) = walk(&code, &memory, context, None);
    assert_eq!(end, Ok(()), "{frames:x?}");
    let pcs: Vec<usize> = frames[1..].iter().map(|frame| frame.pc).collect();
    assert_eq!(pcs, system[1..].iter().map(|frame| frame.0).collect::<Vec<_>>());
    let last = frames.last().unwrap();
    assert_eq!((last.return_address, last.return_slot), (0, None));
    // Relaxed: read on the same thread.
    CHECKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn the_end_of_a_coroutine_is_the_end_of_its_walk() {
    let mut stack = vec![0_usize; 1 << 17];
    for _ in 0..2 {
        // SAFETY: the coroutine runs on a stack of its own, 4 KiB below the end of the memory, and
        // goes back to the context that is saved when it is begun.
        unsafe {
            let mut contexts: [std::mem::MaybeUninit<libc::ucontext_t>; 2] =
                [const { std::mem::MaybeUninit::zeroed() }; 2];
            let [own, back] = &mut contexts;
            assert_eq!(libc::getcontext(own.as_mut_ptr()), 0);
            let context = own.assume_init_mut();
            context.uc_stack.ss_sp = stack.as_mut_ptr().cast();
            context.uc_stack.ss_size = size_of_val(&*stack) - 4096;
            context.uc_link = back.as_mut_ptr();
            libc::makecontext(context, coroutine, 0);
            assert_eq!(libc::swapcontext(back.as_mut_ptr(), context), 0);
        }
    }
    assert_eq!(CHECKED.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn a_return_address_of_zero_is_an_end_and_a_pc_of_zero_is_not() {
    let code = Code::new();
    code.refresh_images();
    let here = a_return_address_of_zero_is_an_end_and_a_pc_of_zero_is_not as *const () as usize;
    let memory = MemorySnapshot { start: 0x7000, words: vec![0; 8] };
    let mut registers = RegisterSet::new(here, 0x7000, 0);
    if arch::CALL_PUSHES == 0 {
        registers.set(arch::RA, 0);
    }
    let (frames, end) = walk(&code, &memory, registers, None);
    assert_eq!((frames.len(), end), (1, Ok(())));
    let (frames, end) = walk(&code, &memory, RegisterSet::new(0, 0x7000, 0), None);
    assert_eq!((frames.len(), end), (0, Err(WalkError::NoRule { pc: 0 })));
}

#[test]
fn threads_take_caches_from_a_pool_and_give_them_back() {
    let pool = RuleCachePool::new(3, 500);
    let code = Code::new();
    code.refresh_images();
    code.snapshot().read_images().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let Some(mut cache) = pool.take() else { continue };
                    let snapshot = code.snapshot();
                    let (memory, context) = (this_thread::stack(), RegisterSet::capture());
                    let mut walk = Unwinder::new(&snapshot, &mut cache, memory, (), context);
                    while walk.next_frame().unwrap().is_some() {}
                }
            });
        }
    });
    let taken: Vec<_> = (0..3).map(|_| pool.take().expect("all were given back")).collect();
    assert!(pool.take().is_none());
    assert!(taken.iter().any(|cache| !cache.is_empty()));
}
