//! Threads that come to their end: the destructors of pthread keys run after those of
//! thread-locals.

use crate::*;
use std::sync::OnceLock;

/// What a thread does when its thread-locals are gone.
type Late<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs `late` at the end of the calling thread, once its thread-locals are gone.
///
/// # Safety
/// What `late` refers to outlives the thread.
unsafe fn at_the_end(late: Late<'_>) {
    unsafe extern "C" fn run(late: *mut c_void) {
        // SAFETY: made by `at_the_end`, and taken once.
        unsafe { Box::from_raw(late.cast::<Late<'_>>())() }
    }
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    let key = *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the destructor takes the values that are set below.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(run)) }, 0);
        key
    });
    let late = Box::into_raw(Box::new(late));
    // SAFETY: the key has been made.
    assert_eq!(unsafe { libc::pthread_setspecific(key, late.cast()) }, 0);
}

/// Runs `early` on a new thread and `late` at its end.
fn on_ending_thread(early: impl FnOnce() + Send, late: impl FnOnce() + Send) {
    let (done, end) = mpsc::channel();
    thread::scope(|scope| {
        let late = move || {
            late();
            done.send(()).expect("the test waits");
        };
        scope.spawn(|| {
            // SAFETY: the scope's end does not wait for it, but the test does.
            unsafe { at_the_end(Box::new(late)) };
            early();
        });
        end.recv().expect("no panic at the thread's end");
    });
}

#[test]
fn a_thread_is_attached_when_its_thread_locals_are_gone() {
    for config in configs() {
        let setting = &Setting::new(config);
        let early = || {
            attach(&setting.runtime).expect("a new thread");
            assert_eq!(setting.call(Stack::Threads, 3, &|| 1), rec_adds(3) + 1);
            // SAFETY: no `Caller` is used across it.
            unsafe { setting.runtime.detach_native_stack() }.expect("no managed code runs");
        };
        let result = AtomicUsize::new(0);
        let late = || {
            attach(&setting.runtime).expect("not attached any more");
            let scans = || {
                caller().foreign(|| setting.scan());
                2
            };
            let act = || caller().foreign(|| setting.call(Stack::Threads, 4, &scans));
            result.store(setting.call(Stack::Threads, 3, &act), Relaxed);
            // SAFETY: as above.
            unsafe { setting.runtime.detach_native_stack() }.expect("no managed code runs");
        };
        on_ending_thread(early, late);
        assert_eq!(result.load(Relaxed), rec_adds(3) + rec_adds(4) + 2);
        setting.check_at_end();
    }
}

#[test]
fn a_machine_is_attached_when_its_threads_thread_locals_are_gone() {
    let setting = &Setting::new(Config::default());
    let run = || assert_eq!(setting.run(3, &|| 1), rec_adds(3) + 1);
    on_ending_thread(run, run);
    setting.check_at_end();
}
