//! Foreign calls: what may happen while one is under way, and what it leaves behind.

use crate::native::Library;
use crate::{Object, Setting, configs, guarded_result, header, rec_result, stack_size};
use parking_lot::{Condvar, Mutex};
use stackmark_stack::scheduler::{Scheduler, Threads};
use stackmark_stack::{Caller, LibCall, Status, Word};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Waits until it is opened.
#[derive(Default)]
struct Door(Mutex<bool>, Condvar);

impl Door {
    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }
}

/// Runs goroutines under a scheduler until all have ended.
fn scheduled(s: &Setting, threads: usize, goroutines: &[(usize, crate::Act<'_>)]) -> Vec<usize> {
    let idle = Arc::new(Door::default());
    let at_idle = idle.clone();
    let scheduler = Scheduler::new(&s.runtime, threads, Box::new(move || at_idle.open()));
    let objects: Vec<_> = goroutines.iter().map(|(_, act)| Object::new(*act)).collect();
    let mut arguments: Vec<_> = objects
        .iter()
        .zip(goroutines)
        .map(|(object, (n, _))| [*n, &raw const *object as usize, usize::MAX])
        .collect();
    for argument in &mut arguments {
        // SAFETY: compiled code that keeps the contracts; the argument outlives it.
        let goroutine =
            unsafe { s.runtime.spawn(s.compiled.entry, argument.as_mut_ptr() as usize) }
                .expect("memory");
        s.runtime.schedule(goroutine);
    }
    let running: Threads = scheduler.start().expect("threads");
    idle.wait();
    running.stop();
    arguments.iter().map(|argument| argument[2]).collect()
}

#[test]
fn a_foreign_call_that_lasts_does_not_keep_the_other_goroutines_of_its_thread() {
    let s = Setting::new(configs()[1].clone());
    let (door, ran) = (Door::default(), AtomicUsize::new(0));
    // The only thread's first goroutine waits, in native code, for the others.
    let waits = |_: &Object<'_>| {
        // SAFETY: used here alone.
        unsafe { Caller::current() }.foreign(|| door.wait());
        1usize
    };
    let runs = |_: &Object<'_>| {
        if ran.fetch_add(1, Relaxed) == 9 {
            door.open();
        }
        // SAFETY: nothing here owns anything; the native function ends here.
        unsafe { Caller::current().yield_now(0) }
    };
    let mut goroutines: Vec<(usize, crate::Act<'_>)> = vec![(5, &waits)];
    goroutines.extend([(3, &runs as crate::Act<'_>); 10]);
    let results = scheduled(&s, 1, &goroutines);
    assert_eq!(results[0], guarded_result(rec_result(5, 1)));
    assert!(results[1..].iter().all(|r| *r == guarded_result(rec_result(3, 0))), "{results:?}");
    s.check_at_end();
}

#[test]
fn a_goroutine_parked_in_a_callback_does_not_keep_the_other_goroutines_of_its_thread() {
    let s = Setting::new(configs()[1].clone());
    let parked = Mutex::new(Vec::new());
    let thread = || std::thread::current().id();
    let parks = |_: &Object<'_>| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| {
            let here = thread();
            let result = s.call_back(2, &|_| {
                let queue = parked.lock();
                // SAFETY: not used after the park, which gives up the lock.
                unsafe {
                    let mut queue = queue;
                    Caller::current().park(move |goroutine| queue.push(goroutine))
                }
            });
            assert_eq!(thread(), here, "C code goes on on its own thread");
            result
        })
    };
    let wakes = |_: &Object<'_>| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        match parked.lock().pop() {
            Some(goroutine) => caller.runtime().ready(goroutine, Word::Plain(21)),
            // Both run on one thread, and the other one has it to itself until its callback parks.
            None => panic!("no goroutine is parked"),
        }
        3
    };
    let results = scheduled(&s, 1, &[(4, &parks), (1, &wakes)]);
    assert_eq!(results[0], guarded_result(rec_result(4, guarded_result(rec_result(2, 21)))));
    assert_eq!(results[1], guarded_result(rec_result(1, 3)));
    s.check_at_end();
}

#[test]
fn many_foreign_calls_last_at_once_and_all_threads_come_back() {
    let s = Setting::new(configs()[0].clone());
    const WAITING: usize = 40;
    let arrived = (Mutex::new(0usize), Condvar::new());
    let waits = |_: &Object<'_>| {
        // SAFETY: used here alone.
        unsafe { Caller::current() }.foreign(|| {
            let mut count = arrived.0.lock();
            *count += 1;
            arrived.1.notify_all();
            while *count < WAITING {
                arrived.1.wait(&mut count);
            }
        });
        1usize
    };
    // Each of them keeps a thread; the last one lets all of them go on.
    let results = scheduled(&s, 2, &[(3, &waits as crate::Act<'_>); WAITING]);
    assert!(results.iter().all(|r| *r == guarded_result(rec_result(3, 1))));
    s.check_at_end();
}

#[test]
fn a_thread_that_ends_in_a_foreign_call_is_replaced() {
    let Some(library) = Library::load("threads.c") else { return };
    // SAFETY: the function's type in threads.c.
    let end_thread = unsafe {
        let f = library.function("end_thread");
        std::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn(*mut c_void) -> usize>(f)
    };
    let s = Setting::new(configs()[1].clone());
    let ends = |_: &Object<'_>| {
        // SAFETY: used here alone; the thread ends.
        unsafe { Caller::current().foreign(|| end_thread(std::ptr::null_mut())) }
    };
    let runs = |_: &Object<'_>| 2;
    let results = scheduled(&s, 1, &[(5, &ends), (3, &runs), (5, &ends), (3, &runs)]);
    let ran = guarded_result(rec_result(3, 2));
    assert_eq!(results, [usize::MAX, ran, usize::MAX, ran]);
    // The last thread is detached a moment after its scheduler has seen its end.
    while s.runtime.live_goroutines() > 0 {
        std::thread::yield_now();
    }
    s.check_at_end();
}

#[test]
fn a_collector_scans_a_goroutine_in_a_foreign_call_without_its_help() {
    for config in configs() {
        let s = Setting::new(config);
        let result = s.run(50, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            let (goroutine, s) = (caller.handle(), &s);
            caller.foreign(|| {
                std::thread::scope(|scope| {
                    scope.spawn(move || {
                        assert_eq!(goroutine.status(), Status::Foreign);
                        s.scan_from_outside();
                    });
                });
            });
            1
        });
        assert_eq!(result, guarded_result(rec_result(50, 1)));
        s.check_at_end();
    }
}

#[test]
fn go_8696_a_callback_grows_the_stack_under_a_call_out() {
    for config in configs() {
        let s = Setting::new(config);
        let result = s.run(2, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            let size = |caller: Caller<'_>| stack_size(caller.goroutine());
            let before = size(caller);
            // From 2 KiB to more than 256 KiB.
            let result = caller.foreign(|| s.call_back(5000, &|_| 3));
            assert!(size(caller) >= 128 * before, "{before} to {}", size(caller));
            assert_eq!(result, guarded_result(rec_result(5000, 3)));
            9
        });
        // The frames older than the call out, their locals and registers, are what they were.
        assert_eq!(result, guarded_result(rec_result(2, 9)));
        s.check_at_end();
    }
}

/// Functions of the system: one that gives the process's number, one that fails and how.
#[cfg(not(windows))]
mod system {
    pub(super) const PROCESS: *const () = libc::getpid as *const ();
    pub(super) const CLOSE: *const () = libc::close as *const ();
    pub(super) const CLOSE_FAILS: (i32, i32) = (-1, libc::EBADF);

    pub(super) fn set_error(error: usize) {
        // SAFETY: errno of this thread.
        unsafe { *libc::__errno_location() = error as i32 };
    }
}

#[cfg(windows)]
mod system {
    use windows_sys::Win32::Foundation::{CloseHandle, ERROR_INVALID_HANDLE, SetLastError};
    use windows_sys::Win32::System::Threading::GetCurrentProcessId;

    pub(super) const PROCESS: *const () = GetCurrentProcessId as *const ();
    pub(super) const CLOSE: *const () = CloseHandle as *const ();
    pub(super) const CLOSE_FAILS: (i32, i32) = (0, ERROR_INVALID_HANDLE as i32);

    pub(super) fn set_error(error: usize) {
        // SAFETY: the last error of this thread.
        unsafe { SetLastError(error as u32) };
    }
}

/// A "system call" that calls back, and then sets its result and errno.
unsafe extern "C-unwind" fn calls_back(
    s: *mut c_void,
    level: usize,
    result: usize,
    error: usize,
) -> usize {
    // SAFETY: the test passes its setting.
    let s = unsafe { &*(s as *const Setting) };
    s.call_back(1000, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        let inner = match level {
            // SAFETY: the first takes nothing; the second fails on what is not open.
            0 => unsafe {
                assert_eq!(
                    caller.lib_call(system::PROCESS as usize, &[]).result,
                    std::process::id() as usize
                );
                let failed = caller.lib_call(system::CLOSE as usize, &[0x7fff_fff0]);
                assert_eq!((failed.result as i32, failed.error), system::CLOSE_FAILS);
                failed.result
            },
            // SAFETY: it takes these arguments.
            _ => unsafe { library_call(caller, s, level - 1, 7 + level, 70 + level) },
        };
        std::hint::black_box(inner)
    });
    system::set_error(error);
    result
}

unsafe fn library_call(
    caller: Caller<'_>,
    s: &Setting,
    level: usize,
    result: usize,
    error: usize,
) -> usize {
    let arguments = [&raw const *s as usize, level, result, error];
    // SAFETY: the function takes these arguments.
    let call = unsafe { caller.lib_call(calls_back as *const () as usize, &arguments) };
    assert_eq!((call.result, call.error), (result, error as i32));
    // The record says what was called, although calls were made in between.
    assert_eq!(call.arguments[..4], arguments);
    assert_eq!(caller.last_lib_call(), LibCall { function: 0, ..call });
    call.result
}

#[test]
fn go_10406_a_library_calls_results_survive_a_callback_that_grows_the_stack_and_calls() {
    for config in configs() {
        let s = Setting::new(config);
        let result = s.run(1, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            // SAFETY: as above.
            unsafe { library_call(caller, &s, 2, 100, 333) }
        });
        assert_eq!(result, guarded_result(rec_result(1, 100)));
        s.check_at_end();
    }
}

#[test]
fn go_8771_results_are_written_to_where_the_stack_is_after_a_callback() {
    // As a C wrapper does it: the address of a result slot, adjusted by the move of the stack's
    // top.
    for config in configs() {
        let s = Setting::new(config);
        let slot = AtomicUsize::new(0);
        s.run(2, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            // SAFETY: a goroutine runs on this thread.
            let top = || unsafe { stackmark_stack::asm::stackmark_stack_top() };
            // Some word of the goroutine's stack: the return address of the frame that called out.
            let stands = || header(caller.goroutine()).sched.sp.load(Relaxed);
            let above = stackmark_stack::asm::CALL_SYSTEM_BYTES - size_of::<usize>();
            let address = stands() + above;
            let before = top();
            caller.foreign(|| s.call_back(2000, &|_| 1));
            let moved = top().wrapping_sub(before);
            assert_ne!(moved, 0, "the stack has moved");
            let now = address.wrapping_add(moved);
            assert_eq!(now, stands() + above);
            // SAFETY: the word lies in the stack as it is now.
            slot.store(unsafe { *(now as *const usize) }, Relaxed);
            0
        });
        assert_ne!(slot.load(Relaxed), 0);
        s.check_at_end();
    }
}

#[test]
fn go_8696_callbacks_succeed_with_every_amount_of_free_stack() {
    // A frame of 16 bytes more at each depth: the callback's frames meet the guard at every
    // alignment.
    let s = Setting::new(configs()[0].clone());
    for n in 0..200 {
        let result = s.run(n, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            caller.foreign(|| s.call_back(n % 7, &|_| 1))
        });
        assert_eq!(result, guarded_result(rec_result(n, guarded_result(rec_result(n % 7, 1)))));
    }
    s.check_at_end();
}
