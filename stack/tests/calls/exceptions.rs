//! Rust panics and C++ exceptions that cross managed frames, and are caught at a call out.

use crate::native::Library;
use crate::threads::{CHILD, child};
use crate::{Setting, configs, guarded_result, landed_result, rec_result};
use stackmark_stack::{Caller, Config, NativeException, Status};
use std::ffi::{CStr, c_char, c_void};

/// Runs `f` in a foreign call and makes an exception that leaves it a landing in the youngest
/// landing pad.
fn guarded_native(s: &Setting, f: impl FnOnce() -> usize) -> usize {
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    match caller.catch_native(|| caller.foreign(f)) {
        Ok(result) => result,
        Err(exception) => {
            assert_eq!(caller.goroutine().status(), Status::Running);
            let length = exception.to_string().len();
            drop(exception);
            s.leave_to(0, [length, 1])
        }
    }
}

fn quietly<R>(f: impl FnOnce() -> R) -> R {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let expected =
                info.payload().downcast_ref::<&str>().is_some_and(|s| s.starts_with("expected"));
            if !expected {
                hook(info);
            }
        }));
    });
    f()
}

#[test]
fn a_stack_that_an_uncaught_exception_crosses_does_not_move() {
    /// A destructor that calls back into managed code, so many frames deep.
    struct CallsBack<'s>(&'s Setting, usize);
    impl Drop for CallsBack<'_> {
        fn drop(&mut self) {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            caller.foreign(|| self.0.call_back(self.1, &|_| 1));
        }
    }
    const NAME: &str = "exceptions::a_stack_that_an_uncaught_exception_crosses_does_not_move";
    let Ok(frames) = std::env::var(CHILD) else {
        // There is room for one frame, so the exception arrives.
        let (text, status) = child(NAME, "1");
        assert!(text.contains("panic: nothing catches this"), "{text}");
        assert_eq!(status, Some(2), "{text}");
        let (text, status) = child(NAME, "3000");
        if cfg!(windows) {
            // No handler has an address in this stack: the exception ends on the other one.
            assert!(text.contains("panic: nothing catches this"), "{text}");
            assert_eq!(status, Some(2), "{text}");
            return;
        }
        // More frames need more room, and the handler's CFA is an address in this stack.
        assert!(text.contains("would have to move while an exception crosses it"), "{text}");
        assert_ne!(status, Some(0), "{text}");
        return;
    };
    let s = Setting::new(Config::default());
    s.run(1, &|_| {
        // The stack grows, so that it has room for few frames, whatever their sizes.
        // SAFETY: used here alone.
        unsafe { Caller::current() }.foreign(|| s.call_back(20, &|_| 1));
        let _guard = CallsBack(&s, frames.parse().expect("a number"));
        panic!("nothing catches this")
    });
}

#[test]
fn a_rust_panic_becomes_what_the_host_makes_of_it() {
    for config in configs() {
        let s = Setting::new(config);
        let result = quietly(|| {
            s.run(6, &|_| {
                s.scan();
                guarded_native(&s, || panic!("expected"))
            })
        });
        assert_eq!(result, landed_result(["expected".len(), 1]));
        assert!(!std::thread::panicking(), "the panic counts as caught");
        s.check_at_end();
    }
}

#[test]
fn a_rust_panic_crosses_callbacks_and_managed_frames() {
    for config in configs() {
        let s = Setting::new(config);
        let result = quietly(|| {
            s.run(6, &|_| {
                guarded_native(&s, || {
                    s.call_back_to("inner_unguarded", 9, &|_| {
                        s.scan();
                        // SAFETY: used here alone.
                        unsafe { Caller::current() }.foreign(|| panic!("expected too"))
                    })
                })
            })
        });
        assert_eq!(result, landed_result(["expected too".len(), 1]));
        let counters = s.runtime.counters();
        use std::sync::atomic::Ordering::Relaxed;
        let [placed, hit, left] =
            [&counters.placed, &counters.hit, &counters.leapfrogged].map(|c| c.load(Relaxed));
        assert_eq!(placed, hit + left, "every barrier is settled");
        s.check_at_end();
    }
}

#[test]
fn a_cxx_exception_is_caught_named_and_deleted() {
    let Some(library) = Library::load("cxx.cc") else { return };
    type Throw = unsafe extern "C-unwind" fn(*const c_char) -> usize;
    // SAFETY: the function's type in cxx.cc.
    let throw = unsafe {
        std::mem::transmute::<*mut c_void, Throw>(library.function("throw_runtime_error"))
    };
    let text: &CStr = c"oops";
    for config in configs() {
        let s = Setting::new(config);
        let result = s.run(6, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            let outcome = caller.catch_native(|| {
                caller.foreign(|| {
                    s.call_back_to("inner_unguarded", 3, &|_| {
                        s.scan();
                        // SAFETY: it takes a C string.
                        unsafe { throw(text.as_ptr()) as usize }
                    })
                })
            });
            let exception = outcome.expect_err("it throws");
            assert!(matches!(exception, NativeException::Foreign(_)));
            assert_eq!(exception.to_string(), "C++ exception of type std::runtime_error");
            assert_eq!(caller.goroutine().status(), Status::Running);
            42
        });
        assert_eq!(result, guarded_result(rec_result(6, 42)));
        s.check_at_end();
    }
}

#[test]
fn a_cxx_exception_thrown_in_a_callback_is_caught_by_the_cxx_code_that_called_out() {
    let Some(library) = Library::load("cxx.cc") else { return };
    type Throw = unsafe extern "C-unwind" fn(*const c_char) -> usize;
    type Catch = unsafe extern "C-unwind" fn(
        unsafe extern "C-unwind" fn(*mut c_void) -> usize,
        *mut c_void,
    ) -> usize;
    // SAFETY: the functions' types in cxx.cc.
    let (throw, catch) = unsafe {
        let throw = library.function("throw_runtime_error");
        let catch = library.function("catch_runtime_error");
        (
            std::mem::transmute::<*mut c_void, Throw>(throw),
            std::mem::transmute::<*mut c_void, Catch>(catch),
        )
    };
    struct Context<'s>(&'s Setting, Throw);
    unsafe extern "C-unwind" fn back(context: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        let Context(s, throw) = unsafe { &*(context as *const Context<'_>) };
        s.call_back_to("inner_unguarded", 12, &|_| {
            s.scan();
            // SAFETY: it takes a C string.
            unsafe { throw(c"up".as_ptr()) }
        })
    }
    for config in configs() {
        let s = Setting::new(config);
        let context = Context(&s, throw);
        let context = &context as *const Context<'_> as usize;
        let result = s.run(6, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            // SAFETY: the C++ function calls back with what it is given.
            let result = caller.foreign(|| unsafe { catch(back, context as *mut c_void) });
            assert_eq!(caller.goroutine().status(), Status::Running);
            assert!(!caller.goroutine().in_callback());
            result
        });
        assert_eq!(result, guarded_result(rec_result(6, 77)));
        s.check_at_end();
    }
}
