//! Hardware that protects return addresses by a second stack. Where it is in use, a return through
//! a hijacked address faults, so no barriers are placed. Signed return addresses (arm64 PAC) are no
//! obstacle: barriers and moves sign them as the function did.
//!
//! [`os::protection_facts`] collects what the system says. The functions that judge these facts are
//! compiled for every target, so that they are tested on every target.

use crate::os;
use std::fmt;

/// What guards the return addresses of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReturnProtection {
    /// x86 CET: the processor compares each return address with its copy on a stack
    /// that programs cannot write.
    ShadowStack,
    /// arm64 GCS: as [`ReturnProtection::ShadowStack`].
    GuardedControlStack,
}

impl fmt::Display for ReturnProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReturnProtection::ShadowStack => "shadow stack",
            ReturnProtection::GuardedControlStack => "guarded control stack",
        })
    }
}

/// What a runtime does about hardware that protects return addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Detection {
    /// Asks the system when the runtime is made. If a protection is in use, the mode of barriers is
    /// [`BarrierMode::Off`](crate::BarrierMode::Off).
    #[default]
    Ask,
    /// Assumes this protection, without asking: for systems that hide it, and for tests.
    Assume(ReturnProtection),
    /// Uses the mode of barriers that the embedder has chosen, whatever the system says. If a
    /// protection is in use, the first return through a barrier ends the process.
    Ignore,
}

/// The protection in use on this thread. Threads that this thread starts inherit its protection.
pub(crate) fn in_use() -> Option<ReturnProtection> {
    let facts = os::protection_facts();
    shadow_stack(facts.x86_shadow_stack, facts.thread_status.as_deref())
        .or_else(|| guarded_control_stack(facts.arm64_hardware, facts.arm64_shadow_stack))
}

/// The protection on x86. `status` has the features that `ARCH_SHSTK_STATUS` names. Without them,
/// `thread` is the text of `/proc/thread-self/status`.
fn shadow_stack(status: Option<u64>, thread: Option<&str>) -> Option<ReturnProtection> {
    const ARCH_SHSTK_SHSTK: u64 = 1;
    let listed = || {
        let features =
            thread?.lines().find_map(|line| line.strip_prefix("x86_Thread_features:"))?;
        Some(features.split_whitespace().any(|feature| feature == "shstk"))
    };
    let on = status
        .map_or_else(|| listed().unwrap_or(false), |features| features & ARCH_SHSTK_SHSTK != 0);
    on.then_some(ReturnProtection::ShadowStack)
}

/// The protection on arm64. `hwcap` is the word of the auxiliary vector. `stacks` has the features
/// that `PR_GET_SHADOW_STACK_STATUS` names.
fn guarded_control_stack(hwcap: u64, stacks: Option<u64>) -> Option<ReturnProtection> {
    const HWCAP_GCS: u64 = 1 << 32;
    const PR_SHADOW_STACK_ENABLE: u64 = 1;
    let on = hwcap & HWCAP_GCS != 0 && stacks.unwrap_or(0) & PR_SHADOW_STACK_ENABLE != 0;
    on.then_some(ReturnProtection::GuardedControlStack)
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use ReturnProtection::*;

    #[test]
    fn an_x86_shadow_stack_is_what_the_system_says() {
        // The second feature is for programs that write their shadow stack themselves.
        for (status, found) in
            [(0, None), (0b01, Some(ShadowStack)), (0b11, Some(ShadowStack)), (0b10, None)]
        {
            assert_eq!(shadow_stack(Some(status), None), found);
            assert_eq!(
                shadow_stack(Some(status), Some("x86_Thread_features:\tshstk\n")),
                found,
                "the status goes first"
            );
        }
    }

    #[test]
    fn where_the_call_fails_the_threads_status_file_is_asked() {
        let file = |features: &str| {
            format!("Name:\tminigo\nx86_Thread_features:\t{features}\nThreads:\t1\n")
        };
        for (features, found) in [
            ("", None),
            ("shstk ", Some(ShadowStack)),
            ("shstk wrss ", Some(ShadowStack)),
            ("wrss ", None),
        ] {
            assert_eq!(shadow_stack(None, Some(&file(features))), found, "{features}");
        }
        // The locked features do not count. An old system has neither line.
        assert_eq!(shadow_stack(None, Some("x86_Thread_features_locked:\tshstk wrss\n")), None);
        assert_eq!(
            (shadow_stack(None, Some("Name:\tminigo\n")), shadow_stack(None, None)),
            (None, None)
        );
    }

    const GCS: u64 = 1 << 32;

    #[test]
    fn a_guarded_control_stack_is_in_use_where_it_is_there_and_enabled() {
        for stacks in [0b001, 0b111] {
            assert_eq!(guarded_control_stack(GCS, Some(stacks)), Some(GuardedControlStack));
        }
        for (hwcap, stacks) in
            [(GCS, Some(0)), (GCS, None), (0, Some(1)), (0, None), (GCS, Some(0b110))]
        {
            assert_eq!(guarded_control_stack(hwcap, stacks), None, "{hwcap:#x} {stacks:?}");
        }
    }
}
