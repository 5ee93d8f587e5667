//! Compares backtraces of real processes with gdb's, frame by frame: of C++ that throws through
//! five libraries, and of Rust in a signal handler.
// Native code for armv7 has no CFI.
#![cfg(not(target_arch = "arm"))]
// It is about signals and libraries of ELF systems. tests/windows.rs has the like of it.
#![cfg(not(windows))]

#[path = "support/gdb.rs"]
mod gdb;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use stackmark_unwind::{Code, RegisterSet, RuleCache, Unwinder};

/// Walks this thread, from the caller on, and stops for gdb.
#[inline(never)]
extern "C-unwind" fn look() {
    let code = Code::new();
    code.refresh_images();
    let snapshot = code.snapshot();
    let mut cache = RuleCache::new();
    let context = RegisterSet::capture();
    let mut callers = Vec::new();
    let mut trace = Unwinder::new(&snapshot, &mut cache, this_thread::stack(), (), context);
    let mut to_signal_frame = false;
    while let Some(frame) = trace.next_frame().expect("a whole stack") {
        if frame.signal_frame
            && let Some(last) = callers.last_mut()
        {
            *last = (frame.pc, true);
            to_signal_frame = true;
        }
        if frame.return_address != 0 {
            callers.push((frame.return_address, false));
        }
    }
    if std::env::var(gdb::SUBJECT).as_deref() == Ok("signal") {
        assert!(to_signal_frame);
    }
    gdb::report(&callers);
    gdb::stackmark_test_stop();
    // Keeps the call from being the last, so that this frame stays.
    std::hint::black_box(&callers);
}

fn directory() -> PathBuf {
    std::env::temp_dir().join("stackmark-backtraces")
}

/// Compiles the five libraries. Yields the path of the first, or `None` if there is no compiler.
fn libraries(subject: &str) -> Option<PathBuf> {
    let directory = directory().join(format!("{subject}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backtraces/throws.cpp");
    let library = |n: u32| directory.join(format!("libthrows{n}.so"));
    for n in (1..=5_u32).rev() {
        let mut compiler = programs::command("g++");
        compiler
            .args(["-O1", "-fPIC", "-shared"])
            .arg(format!("-DN={n}"))
            .arg("-o")
            .arg(library(n))
            .arg(&source);
        if n < 5 {
            compiler.arg(format!("-DNEXT={}", n + 1)).arg(library(n + 1));
            compiler.arg(format!("-Wl,-rpath,{}", directory.display()));
        }
        match compiler.status() {
            Ok(status) => assert!(status.success(), "{compiler:?}"),
            Err(_) => {
                eprintln!("skipped: g++ is missing");
                return None;
            }
        }
    }
    Some(library(1))
}

/// The subject: it runs under gdb, and does nothing otherwise.
#[test]
fn subject() {
    match std::env::var(gdb::SUBJECT).as_deref() {
        Ok("signal") => recurse(7),
        Ok(function) => {
            let path = std::env::var(gdb::ARGUMENT).expect("the library's path");
            let (path, function) =
                (CString::new(path).expect("a path"), CString::new(function).expect("a name"));
            // SAFETY: libraries without initialisers; the function has this type.
            unsafe {
                let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
                assert!(!library.is_null());
                let function = libc::dlsym(library, function.as_ptr());
                assert!(!function.is_null());
                type Function = extern "C-unwind" fn(extern "C-unwind" fn()) -> i32;
                std::mem::transmute::<*mut libc::c_void, Function>(function)(look);
            }
        }
        Err(_) => {}
    }
}

/// Recurses, and raises a signal in the innermost call.
#[inline(never)]
fn recurse(depth: usize) {
    extern "C" fn on_signal(_signal: i32) {
        look();
        std::hint::black_box(());
    }
    if depth > 0 {
        recurse(std::hint::black_box(depth) - 1);
    } else {
        // SAFETY: the handler may take locks, since this thread holds none here.
        unsafe {
            libc::signal(libc::SIGUSR1, on_signal as *const () as usize);
            libc::raise(libc::SIGUSR1);
        }
    }
    std::hint::black_box(depth);
}

/// Compares the two backtraces. Yields the number of callers.
fn compare(subject: &str, argument: &str) -> Option<usize> {
    let (walked, by_gdb) = gdb::both("subject", subject, argument)?;
    assert_eq!(walked, by_gdb, "{walked:#x?}\n{by_gdb:#x?}");
    Some(walked.len())
}

fn throwing(subject: &str, least: usize) {
    let Some(library) = libraries(subject) else { return };
    let callers = compare(subject, library.to_str().expect("a path in UTF-8"));
    let _ = std::fs::remove_dir_all(library.parent().expect("a directory"));
    assert!(callers.is_none_or(|callers| callers > least), "{callers:?} callers");
}

#[test]
fn of_cpp_that_throws_through_five_libraries_equal_gdbs() {
    // In the third library, on the way back: its landing pad, two libraries, the catcher.
    throwing("catches", 5);
    // At the throw, from within the C++ runtime, which ends the program: all five.
    throwing("lets_none_pass", 9);
}

#[test]
fn of_rust_in_a_signal_handler_equal_gdbs() {
    if let Some(callers) = compare("signal", "") {
        assert!(callers > 10, "{callers} callers");
    }
}
