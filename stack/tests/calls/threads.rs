//! Threads that the runtime has never seen, threads that end in the midst of a call, and signal
//! handlers.

use crate::native::Library;
use crate::{Object, Setting, configs, guarded_result, rec_result};
use compiler::MANY_THREADS;
use parking_lot::{Condvar, Mutex};
use stackmark_stack::{CallInError, Caller, Goroutine, Host, Machine, Status, Word, die_of_panic};
use std::ffi::{c_int, c_void};
#[cfg(not(windows))]
use std::sync::atomic::AtomicI32;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> usize;

/// The functions of threads.c.
struct Threads {
    on_threads: unsafe extern "C-unwind" fn(c_int, Callback, *mut c_void) -> usize,
    end_thread: Callback,
    #[cfg(not(windows))]
    wait_for_ever: Callback,
    #[cfg(not(windows))]
    cancel_when: unsafe extern "C-unwind" fn(Callback, *mut c_void, *const c_int) -> c_int,
    from_depth: unsafe extern "C-unwind" fn(c_int, Callback, *mut c_void) -> usize,
    #[cfg(not(windows))]
    in_signal_handler: unsafe extern "C-unwind" fn(Callback, *mut c_void) -> usize,
    call_at_the_end: unsafe extern "C-unwind" fn(Callback, *mut c_void),
    mark_for_the_end: Callback,
    called_at_the_end: unsafe extern "C-unwind" fn() -> usize,
}

#[allow(clippy::missing_transmute_annotations, reason = "the fields have types")]
fn threads() -> Option<Threads> {
    let library = Library::load("threads.c")?;
    macro_rules! functions {
        ($($(#[$only:meta])* $name:ident)*) => {
            Threads {
                $($(#[$only])* $name: {
                    let function = library.function(stringify!($name));
                    // SAFETY: the function's type in threads.c.
                    unsafe { std::mem::transmute::<*mut c_void, _>(function) }
                },)*
            }
        };
    }
    Some(functions! {
        on_threads end_thread from_depth call_at_the_end mark_for_the_end called_at_the_end
        #[cfg(not(windows))] wait_for_ever
        #[cfg(not(windows))] cancel_when
        #[cfg(not(windows))] in_signal_handler
    })
}

/// Something that C calls on some thread.
struct Entry<'a>(&'a (dyn Fn() -> usize + Sync));

impl Entry<'_> {
    fn argument(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }
}

unsafe extern "C-unwind" fn enter(entry: *mut c_void) -> usize {
    // SAFETY: the tests pass an Entry that outlives the threads.
    let entry = unsafe { &*(entry as *const Entry<'_>) };
    (entry.0)()
}

/// Calls `guarded(n)` from native code on any thread.
fn call_in(s: &Setting, n: usize, act: crate::Act<'_>) -> usize {
    s.runtime.call_in(|_| s.call_back(n, act)).expect("a thread that may call in")
}

#[test]
fn a_thread_unknown_to_the_runtime_calls_in_again_and_again_and_is_detached_at_its_end() {
    let Some(c) = threads() else { return };
    for config in configs() {
        let s = Setting::new(config);
        let ids = Mutex::new(Vec::new());
        let body = || {
            let mut sum = 0;
            for n in [3, 300, 1] {
                let result = call_in(&s, n, &|_| {
                    s.scan();
                    // SAFETY: used here alone.
                    ids.lock().push(unsafe { Caller::current() }.goroutine().id());
                    5
                });
                assert_eq!(result, guarded_result(rec_result(n, 5)));
                sum += result;
            }
            sum
        };
        let entry = Entry(&body);
        // SAFETY: `enter` is called with its entry.
        let run = || unsafe { (c.on_threads)(1, enter, entry.argument()) };
        let sum = run();
        let stacks = s.runtime.stack_bytes().resident;
        for _ in 0..100 {
            assert_eq!(run(), sum);
        }
        assert_eq!(s.runtime.stack_bytes().resident, stacks, "nothing is lost");
        let ids = ids.into_inner();
        assert!(
            ids.chunks(3)
                .all(|of_one_thread| of_one_thread.iter().all(|id| *id == of_one_thread[0]))
        );
        assert_ne!(ids[0], ids[3], "each thread has a goroutine of its own");
        s.check_at_end();
    }
}

#[test]
fn very_many_threads_call_in_at_once() {
    const THREADS: usize = MANY_THREADS;
    let Some(c) = threads() else { return };
    let s = Setting::new(configs()[0].clone());
    let arrived = (Mutex::new(0), Condvar::new());
    let body = || {
        call_in(&s, 10, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            // All of them are in managed code's call out at the same time.
            caller.foreign(|| {
                let mut count = arrived.0.lock();
                *count += 1;
                arrived.1.notify_all();
                while *count < THREADS {
                    arrived.1.wait(&mut count);
                }
            });
            if caller.goroutine().id() % 100 == 0 {
                s.scan();
            }
            1
        })
    };
    let entry = Entry(&body);
    // SAFETY: `enter` is called with its entry.
    let sum = unsafe { (c.on_threads)(THREADS as c_int, enter, entry.argument()) };
    assert_eq!(sum, THREADS * guarded_result(rec_result(10, 1)));
    s.check_at_end();
}

#[test]
fn calls_nest_between_a_thread_of_c_and_managed_code() {
    let Some(c) = threads() else { return };
    for config in configs() {
        let s = Setting::new(config);
        fn nested(s: &Setting, depth: usize) -> usize {
            call_in(s, 4, &|_: &Object<'_>| {
                if depth == 0 {
                    s.scan();
                    return 1;
                }
                // SAFETY: used here alone.
                unsafe { Caller::current() }.foreign(|| nested(s, depth - 1))
            })
        }
        let body = || nested(&s, 5);
        let entry = Entry(&body);
        // SAFETY: `enter` is called with its entry.
        let sum = unsafe { (c.on_threads)(4, enter, entry.argument()) };
        let expected = (0..6).fold(1, |inner, _| guarded_result(rec_result(4, inner)));
        assert_eq!(sum, 4 * expected);
        s.check_at_end();
    }
}

#[test]
fn go_59294_a_call_in_from_deep_c_recursion() {
    let Some(c) = threads() else { return };
    let s = Setting::new(configs()[2].clone());
    let body = || {
        let inner = || call_in(&s, 20, &|_| 2);
        let inner = Entry(&inner);
        // First at the surface, then deep: nothing about the thread's stack was noted the first
        // time. SAFETY: `enter` is called with its entry.
        let results =
            unsafe { [0, 1000].map(|depth| (c.from_depth)(depth, enter, inner.argument())) };
        assert_eq!(results, [guarded_result(rec_result(20, 2)); 2]);
        7
    };
    let entry = Entry(&body);
    // SAFETY: `enter` is called with its entry.
    assert_eq!(unsafe { (c.on_threads)(1, enter, entry.argument()) }, 7);
    s.check_at_end();
}

#[test]
fn a_thread_that_exits_in_a_call_out_ends_its_goroutine() {
    let Some(c) = threads() else { return };
    for config in configs() {
        let s = Setting::new(config);
        // A thread that came by itself, in a callback.
        let exits = |_: &Object<'_>| {
            s.scan();
            // SAFETY: used here alone; the thread ends.
            unsafe {
                let caller = Caller::current();
                caller.foreign(|| (c.end_thread)(std::ptr::null_mut()))
            }
        };
        let body = || call_in(&s, 10, &exits);
        let entry = Entry(&body);
        // SAFETY: `enter` is called with its entry.
        unsafe { (c.on_threads)(1, enter, entry.argument()) };
        assert_eq!(s.runtime.live_goroutines(), 0, "the goroutines have ended");
        // A thread that runs goroutines.
        let body = || s.run(10, &exits);
        let entry = Entry(&body);
        // SAFETY: as above.
        unsafe { (c.on_threads)(1, enter, entry.argument()) };
        let counters = s.runtime.counters();
        let [placed, hit, left] =
            [&counters.placed, &counters.hit, &counters.leapfrogged].map(|c| c.load(Relaxed));
        assert_eq!(placed, hit + left, "every barrier is settled");
        // The world stops without them.
        s.runtime.stop_world(|_| ());
        s.check_at_end();
    }
}

// Threads are not cancelled on Windows.
#[cfg(not(windows))]
#[test]
#[cfg_attr(
    stackmark_tsan,
    ignore = "of a thread that is cancelled in a call ThreadSanitizer sees no locks any more"
)]
fn a_thread_that_is_cancelled_in_a_call_out_ends_its_goroutine() {
    let Some(c) = threads() else { return };
    for config in configs() {
        let s = Setting::new(config);
        let flag = AtomicI32::new(0);
        let body = || {
            call_in(&s, 10, &|_| {
                s.scan();
                // SAFETY: used here alone.
                let caller = unsafe { Caller::current() };
                // SAFETY: it takes the address of a C int.
                caller.foreign(|| unsafe { (c.wait_for_ever)(flag.as_ptr().cast()) })
            })
        };
        let entry = Entry(&body);
        // SAFETY: `enter` is called with its entry.
        let cancelled = unsafe { (c.cancel_when)(enter, entry.argument(), flag.as_ptr()) };
        assert_eq!(cancelled, 1);
        s.runtime.stop_world(|_| ());
        s.check_at_end();
    }
}

#[test]
fn another_keys_destructor_calls_in_when_the_thread_ends() {
    let Some(c) = threads() else { return };
    let s = Setting::new(configs()[0].clone());
    let body = || call_in(&s, 2, &|_| 3);
    let entry = Entry(&body);
    let both = || {
        // SAFETY: it only marks the thread.
        unsafe { (c.mark_for_the_end)(std::ptr::null_mut()) };
        body()
    };
    let both = Entry(&both);
    // SAFETY: `enter` is called with its entry.
    unsafe {
        (c.call_at_the_end)(enter, entry.argument());
        (c.on_threads)(5, enter, both.argument());
        assert_eq!((c.called_at_the_end)(), 5 * guarded_result(rec_result(2, 3)));
    }
    s.check_at_end();
}

// Windows has no signals, and handlers of exceptions run on the stack that is in use.
#[cfg(not(windows))]
#[test]
#[cfg_attr(
    stackmark_tsan,
    ignore = "ThreadSanitizer calls handlers itself, later, on the ordinary stack"
)]
fn a_call_from_a_signal_handler_is_refused() {
    let Some(c) = threads() else { return };
    let s = Setting::new(configs()[0].clone());
    let refused = AtomicUsize::new(0);
    let handler = || {
        // SAFETY: a managed function is not reached.
        let error = s.runtime.call_in(|caller| unsafe { caller.callback(s.managed("inner"), 0) });
        match error {
            Ok(Err(CallInError::SignalHandler)) | Err(CallInError::SignalHandler) => {
                refused.fetch_add(1, Relaxed)
            }
            other => panic!("{other:?}"),
        }
    };
    let handler = Entry(&handler);
    // SAFETY: `enter` is called with its entry.
    let interrupted = || unsafe { (c.in_signal_handler)(enter, handler.argument()) };
    let result = s.run(5, &|_| {
        // SAFETY: used here alone.
        unsafe { Caller::current() }.foreign(interrupted);
        1
    });
    assert_eq!(result, guarded_result(rec_result(5, 1)));
    // A thread that has never called in: it has an alternate stack of its own. Rust gives it one.
    interrupted();
    assert_eq!(refused.load(Relaxed), 2);
    s.check_at_end();
}

#[test]
fn a_call_in_from_code_that_is_atomic_to_the_collector_is_refused() {
    let s = Setting::new(configs()[0].clone());
    s.run(5, &|_| {
        let error = s.runtime.call_in(|_| ()).expect_err("not in a foreign call");
        assert!(
            matches!(error, CallInError::NotForeign { status: Status::Running, .. }),
            "{error}"
        );
        0
    });
    let other = Setting::new(configs()[0].clone());
    s.run(5, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        let error =
            caller.foreign(|| other.runtime.call_in(|_| ())).expect_err("another runtime's thread");
        assert_eq!(error, CallInError::Attached);
        0
    });
    s.check_at_end();
}

#[test]
fn a_parked_goroutine_in_a_callback_keeps_its_thread_and_others_run() {
    let Some(c) = threads() else { return };
    let s = Setting::new(configs()[1].clone());
    let waiting = Mutex::new(Vec::new());
    let switched = AtomicUsize::new(0);
    let body = || {
        call_in(&s, 3, &|_| {
            for _ in 0..50 {
                // SAFETY: not used after park; nothing here is owned but the lock, which park gives
                // up.
                let caller = unsafe { Caller::current() };
                let mut queue = waiting.lock();
                if let Some(partner) = queue.pop() {
                    drop(queue);
                    switched.fetch_add(1, Relaxed);
                    s.runtime.ready(partner, Word::Plain(9));
                } else {
                    let thread = std::thread::current().id();
                    // SAFETY: in a callback park returns here.
                    let woken = unsafe { caller.park(move |goroutine| queue.push(goroutine)) };
                    assert_eq!((woken, std::thread::current().id()), (9, thread));
                }
            }
            1
        })
    };
    let entry = Entry(&body);
    // SAFETY: `enter` is called with its entry.
    let sum = unsafe { (c.on_threads)(2, enter, entry.argument()) };
    assert_eq!(sum, 2 * guarded_result(rec_result(3, 1)));
    assert_eq!(switched.load(Relaxed), 50);
    s.check_at_end();
}

/// A host that knows where the source of managed code is.
struct Named;

impl Host for Named {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
    fn source(&self, _pc: usize) -> Option<(String, u32)> {
        Some(("compiled.go".into(), 17))
    }
}

pub(crate) const CHILD: &str = "STACKMARK_TEST_CHILD";

/// Runs the test `name` again in a process of its own, in which `CHILD` is set to `what`: what it
/// wrote, and its status.
pub(crate) fn child(name: &str, what: &str) -> (String, Option<i32>) {
    let mut command = limits::this_program();
    command.args([name, "--exact", "--nocapture"]).env(CHILD, what);
    let output = command.output().expect("this program runs");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn go_8588_an_unrecovered_panic_on_any_thread_prints_its_traceback_and_ends_with_status_2() {
    let Some(c) = threads() else { return };
    let die = |s: &Setting| -> usize { die_of_panic(&s.runtime, "BOOM") };
    let Ok(what) = std::env::var(CHILD) else {
        let name = concat!(
            "threads::go_8588_an_unrecovered_panic_on_any_thread_prints_its_traceback",
            "_and_ends_with_status_2"
        );
        for what in ["own", "foreign", "both"] {
            let (text, status) = child(name, what);
            assert_eq!(status, Some(2), "{what}: {text}");
            let begin =
                text.find("panic: BOOM\n\ngoroutine ").unwrap_or_else(|| panic!("{what}: {text}"));
            let lines: Vec<&str> = text[begin..].lines().collect();
            assert!(lines[2].ends_with(" [running]:"), "{text}");
            let at = |function: &str| {
                lines
                    .iter()
                    .position(|line| line.starts_with(function))
                    .unwrap_or_else(|| panic!("{function}: {text}"))
            };
            // Managed frames first, then the C code that called them, each with its source.
            let (rec, outer) =
                (at("rec(...)"), if what == "own" { at("entry(...)") } else { at("inner(...)") });
            assert!(rec < at("guarded(...)") && at("guarded(...)") < outer, "{text}");
            assert_eq!(lines[rec + 1], "\tcompiled.go:17");
            if what == "both" {
                let through = at("from_depth(...)");
                assert!(outer < through, "{text}");
                let source = if cfg!(windows) { "threads_windows.c:" } else { "threads.c:" };
                assert!(lines[through + 1].contains(source), "{text}");
            }
        }
        return;
    };
    let s = Setting::with_host(configs()[1].clone(), Box::new(Named));
    let act = |_: &Object<'_>| {
        s.scan();
        die(&s)
    };
    match &*what {
        "own" => {
            s.run(3, &act);
        }
        "foreign" => {
            let body = || call_in(&s, 3, &act);
            let entry = Entry(&body);
            // SAFETY: `enter` is called with its entry.
            unsafe { (c.on_threads)(1, enter, entry.argument()) };
        }
        _ => {
            // A goroutine of a thread with a machine calls C, which calls back.
            s.run(3, &|_| {
                // SAFETY: used here alone.
                let caller = unsafe { Caller::current() };
                let body = || s.call_back(3, &act);
                let entry = Entry(&body);
                // SAFETY: `enter` is called with its entry.
                caller.foreign(|| unsafe { (c.from_depth)(3, enter, entry.argument()) })
            });
        }
    }
}

#[test]
fn a_machine_that_is_dropped_leaves_a_thread_that_may_call_in() {
    let s = Setting::new(configs()[0].clone());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop(Machine::attach(&s.runtime).expect("a fresh thread"));
            assert_eq!(call_in(&s, 1, &|_| 1), guarded_result(rec_result(1, 1)));
        });
        // A scope does not wait for the end of its threads.
        thread.join().expect("no panic");
    });
    s.check_at_end();
}
