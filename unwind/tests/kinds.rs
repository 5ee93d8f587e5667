//! One program whose frames are of more than a dozen kinds, compiled in many ways: walks see the
//! frames and the callee-saved registers that the system's unwinder sees.
// Native code for armv7 has no CFI.
#![cfg(not(target_arch = "arm"))]
// It loads a library that the system's compiler builds, which wine does not run.
#![cfg(not(windows))]

#[path = "support/looks.rs"]
mod looks;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/this_thread.rs"]
mod this_thread;

use programs::Directory;
use std::collections::HashSet;
use std::ffi::{CStr, c_void};

/// What is particular about a frame, and the function that it is of.
const KINDS: [(&str, &str); 15] = [
    ("called through the PLT", "through_the_plt"),
    ("nothing saved but what a call needs", "small"),
    ("an array", "array"),
    ("more than an instruction can add", "large"),
    ("alloca", "by_alloca"),
    ("realigned", "realigned"),
    ("all integer registers saved", "many"),
    ("vector registers saved", "floats"),
    ("arguments on the stack", "on_the_stack"),
    ("entered by a tail call", "tail_called"),
    ("called by the C library", "compare"),
    ("set for a jump", "behind_a_jump"),
    ("a signal handler", "handler"),
    ("interrupted by a signal", "in_a_handler"),
    ("a signal handler on an alternate stack", "on_other_stack"),
];

/// The function of its library that has this pc.
fn function_at(pc: usize) -> Option<String> {
    // SAFETY: a struct of words, all of which may be zero.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the loader looks the address up, and fills what it is given.
    let known = unsafe { libc::dladdr((pc - 1) as *const c_void, &mut found) } != 0;
    // SAFETY: a name in a library, which stays loaded.
    let name = || unsafe { CStr::from_ptr(found.dli_sname) }.to_string_lossy().into_owned();
    (known && !found.dli_sname.is_null()).then(name)
}

#[test]
fn frames_of_all_kinds_are_walked_however_they_are_compiled() {
    let directory = Directory::new("kinds");
    directory.write("kinds.c", include_str!("walks/kinds.c"));
    let ways: [(&str, &[&str]); 6] = [
        ("-O0", &["-O0"]),
        ("-O1", &["-O1"]),
        ("without frame pointers", &["-O2", "-fomit-frame-pointer"]),
        ("with frame pointers", &["-O2", "-fno-omit-frame-pointer"]),
        ("small", &["-Os"]),
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        ("protected", &["-O2", "-fcf-protection=full"]),
        #[cfg(target_arch = "aarch64")]
        ("protected", &["-O2", "-mbranch-protection=standard"]),
    ];
    for (label, flags) in ways {
        let flags = [flags, &["-Wl,-z,lazy", "-lm", "kinds.c"]].concat();
        let Some(library) = directory.load(&flags) else { return };
        looks::run(label, &library, "run", 1);
        let found: HashSet<_> = looks::FRAMES.take().into_iter().filter_map(function_at).collect();
        for (kind, function) in KINDS {
            assert!(found.contains(function), "{label}: no frame of {function} ({kind})");
        }
    }
    println!("{} kinds of frames, compiled in {} ways", KINDS.len(), ways.len());
}
