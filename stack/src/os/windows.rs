//! Windows, also as wine has it.

mod areas;
mod faults;
#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
mod fences;
mod images;
mod pages;
mod records;
mod registers;
mod threads;

pub(crate) use faults::{
    AlternateStack, InterruptedContext, handle_faults, handlers_without_alternate_stack, interrupt,
    interrupted,
};
#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
pub(crate) use fences::{fence_all_threads, prepare_fence_of_all_threads, visit_all_processors};
pub(crate) use images::{function_of_library, next_longjmp};
pub(crate) use pages::{
    Mapping, ask_for_huge_pages, discard, give_pages_back, make_accessible, map, page_size,
    release, reserve, take_again, unmap,
};
pub(crate) use records::{barrier_record, has_barrier_records, prepare_barriers};
pub(crate) use registers::further_registers;
pub(crate) use threads::{
    clear_thread_end, default_thread_stack, set_thread_end, this_thread, thread_stack, thread_time,
};

use std::ptr;
use std::sync::atomic::AtomicU32;
use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessMitigationPolicy, ProcessUserShadowStackPolicy, TerminateProcess,
};

/// The calling thread's last error.
pub(crate) fn errno() -> i32 {
    // SAFETY: the word is the calling thread's.
    unsafe { GetLastError() as i32 }
}

/// Sets the calling thread's last error.
pub(crate) fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { SetLastError(value as u32) }
}

/// A word that is 0 in the child of a fork: there are no forks. The same word for all callers.
pub(crate) fn word_that_a_fork_clears() -> &'static AtomicU32 {
    static WORD: AtomicU32 = AtomicU32::new(0);
    &WORD
}

/// Writes to standard error without a lock or a buffer. Ignores errors.
pub(crate) fn write_to_stderr(text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        let (mut written, bytes) = (0, u32::try_from(rest.len()).unwrap_or(u32::MAX));
        // SAFETY: the bytes are ours, and the system writes one word.
        let done = unsafe {
            let stderr = GetStdHandle(STD_ERROR_HANDLE);
            WriteFile(stderr, rest.as_ptr(), bytes, &raw mut written, ptr::null_mut())
        };
        if done == 0 || written == 0 {
            return;
        }
        rest = &rest[written as usize..];
    }
}

/// Ends the process at once. No destructors run, because other threads still run.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { TerminateProcess(GetCurrentProcess(), status as u32) };
    std::process::abort()
}

/// What the system says about shadow stacks of the calling thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProtectionFacts {
    /// Bit 0: whether the process's policy gives its threads shadow stacks. A system that does not
    /// know the policy has none.
    pub(crate) x86_shadow_stack: Option<u64>,
    /// Nothing.
    pub(crate) thread_status: Option<String>,
    /// Nothing.
    pub(crate) arm64_hardware: u64,
    /// Nothing.
    pub(crate) arm64_shadow_stack: Option<u64>,
}

/// Asks the system, which answers for the whole process.
pub(crate) fn protection_facts() -> ProtectionFacts {
    let mut policy = 0_u32;
    // SAFETY: the system writes one word of so many bytes, or fails.
    let known = unsafe {
        GetProcessMitigationPolicy(
            GetCurrentProcess(),
            ProcessUserShadowStackPolicy,
            (&raw mut policy).cast(),
            size_of_val(&policy),
        )
    };
    facts_of((known != 0).then_some(policy))
}

/// What the flags of the policy say. The flag is set in all modes in which a return may fault: for
/// images that are built for it, in the compatible one, and for all code, in the strict one. The
/// other flags audit, or are about what is set by a context.
fn facts_of(policy: Option<u32>) -> ProtectionFacts {
    const ENABLE_USER_SHADOW_STACK: u32 = 1;
    let x86_shadow_stack = policy.map(|flags| u64::from(flags & ENABLE_USER_SHADOW_STACK));
    ProtectionFacts { x86_shadow_stack, ..ProtectionFacts::default() }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_stack_is_what_the_policy_enables() {
        const AUDIT: u32 = 1 << 1;
        const VALIDATE_CONTEXT: u32 = 1 << 2;
        const STRICT: u32 = 1 << 4;
        let found = |policy| facts_of(policy).x86_shadow_stack;
        for (policy, enabled) in [
            (0, 0),
            (1, 1),
            (1 | VALIDATE_CONTEXT, 1),
            (1 | STRICT, 1),
            (AUDIT, 0),
            (AUDIT | VALIDATE_CONTEXT, 0),
        ] {
            assert_eq!(found(Some(policy)), Some(enabled), "{policy:#b}");
        }
        assert_eq!(found(None), None);
    }

    #[test]
    fn the_policy_of_this_process_is_known_or_not_of_this_system() {
        assert!(matches!(protection_facts().x86_shadow_stack, None | Some(0 | 1)));
    }
}
