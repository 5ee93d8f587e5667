//! One program whose frames are of a dozen kinds, compiled in many ways: walks see the frames and
//! the callee-saved registers that the system's unwinder sees.

#[path = "support/looks.rs"]
mod looks;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/this_thread.rs"]
mod this_thread;

use programs::Directory;

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
        #[cfg(target_arch = "x86_64")]
        ("protected", &["-O2", "-fcf-protection=full"]),
        #[cfg(target_arch = "aarch64")]
        ("protected", &["-O2", "-mbranch-protection=standard"]),
    ];
    for (label, flags) in ways {
        let Some(library) = directory.load(&[flags, &["-lm", "kinds.c"]].concat()) else { return };
        looks::run(label, &library, "run", 1);
    }
}
