//! What the system provides: pages, fences, ends of threads, signal stacks and signals. Each system
//! has one file.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;

/// Whether a program plays the processor. It leaves out some of what the system does: then a test
/// says that it is skipped, and why.
#[cfg(all(test, not(stackmark_loom)))]
pub(crate) fn is_emulated(why: &str) -> bool {
    let emulated = std::env::var_os("STACKMARK_TEST_EMULATED").is_some();
    if emulated {
        println!("skipped: {why}");
    }
    emulated
}

#[cfg(not(target_os = "linux"))]
compile_error!("stackmark-stack supports these systems: Linux");
