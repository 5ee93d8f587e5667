//! The stacks of a thread.
// Windows has no stacks for signals.
#![cfg(not(windows))]

use stackmark_unwind::{Memory, ThreadStacks};

#[test]
fn a_threads_stacks_hold_its_frames_and_its_handlers() {
    let check = || {
        let stacks = ThreadStacks::current().unwrap();
        let local = 0_u8;
        assert!(stacks.stack().contains(&(&raw const local as usize)));
        let memory = vec![0_u64; 1 << 13];
        let start = memory.as_ptr() as usize;
        let range = start..start + size_of_val(&*memory);
        let stack =
            libc::stack_t { ss_sp: start as *mut libc::c_void, ss_flags: 0, ss_size: range.len() };
        let mut old = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: the memory outlives its use as a signal stack, on which nothing runs.
        unsafe {
            assert_eq!(libc::sigaltstack(&raw const stack, &raw mut old), 0);
            let with = ThreadStacks::current().unwrap();
            assert_eq!(with.signal_stack(), Some(range.clone()));
            let sp = start + 512;
            let [own, signal] = with.memory(sp);
            assert_eq!(signal.bounds(), sp..range.end);
            assert_eq!(own.bounds().end, with.stack().end & !(size_of::<usize>() - 1));
            assert!(own.read(own.bounds().start).is_some());
            assert_eq!(libc::sigaltstack(&raw const old, std::ptr::null_mut()), 0);
        }
        assert_eq!(ThreadStacks::current().unwrap().signal_stack(), stacks.signal_stack());
        stacks.stack()
    };
    let here = check();
    let other = std::thread::spawn(check).join().unwrap();
    assert!(here.end <= other.start || other.end <= here.start);
}
