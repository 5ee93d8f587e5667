//! Hardware that protects return addresses: a return through a hijacked one faults, so there are no
//! barriers where it is in use.
//!
//! What the system says is collected in one function for each architecture; what follows from it is
//! decided by functions that exist everywhere, so that they are tested everywhere.

use stackmark_unwind::Code;
use std::fmt;

/// What guards the return addresses of a thread or of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReturnProtection {
    /// x86 CET: each return is compared with a copy of the address on a stack that programs cannot
    /// write.
    ShadowStack,
    /// arm64 GCS, which does the same.
    GuardedControlStack,
    /// arm64 PAC: the code signs its return addresses, and checks the signature before it returns.
    SignedReturns,
}

impl fmt::Display for ReturnProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReturnProtection::ShadowStack => "shadow stack",
            ReturnProtection::GuardedControlStack => "guarded control stack",
            ReturnProtection::SignedReturns => "signed return addresses",
        })
    }
}

/// What a runtime does about hardware that protects return addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Detection {
    /// Asks the system, when the runtime is made. Where there is a protection, the mode of barriers
    /// is [`BarrierMode::Off`](crate::BarrierMode::Off).
    #[default]
    Ask,
    /// Takes this protection for granted: for systems that hide it, and for tests.
    Assume(ReturnProtection),
    /// The mode of barriers is what the embedder has chosen, whatever the system says. Where it is
    /// right, the first return through a barrier ends the process.
    Ignore,
}

/// What is in use on this thread, which the threads that it starts inherit, or in the code that is
/// registered so far.
#[cfg(target_arch = "x86_64")]
pub(crate) fn in_use(_code: &Code) -> Option<ReturnProtection> {
    /// Linux 6.6. A system that does not know the question has no shadow stacks.
    const ARCH_SHSTK_STATUS: libc::c_int = 0x5005;
    let mut features: u64 = 0;
    // SAFETY: the call writes one word to where it is told, or fails.
    let result =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SHSTK_STATUS, &raw mut features) };
    let status = (result == 0).then_some(features);
    // A sandbox may refuse the call.
    let text = status
        .is_none()
        .then(|| std::fs::read_to_string("/proc/thread-self/status").ok())
        .flatten();
    x86_64(status, text.as_deref())
}

/// As above.
#[cfg(target_arch = "aarch64")]
pub(crate) fn in_use(code: &Code) -> Option<ReturnProtection> {
    /// Linux 6.13.
    const PR_GET_SHADOW_STACK_STATUS: libc::c_int = 74;
    const PR_PAC_GET_ENABLED_KEYS: libc::c_int = 61;
    let mut status: u64 = 0;
    // SAFETY: the first call reads the auxiliary vector, the second writes one word to where it is
    // told or fails, the third returns a number.
    let (hwcap, stacks, keys) = unsafe {
        (
            libc::getauxval(libc::AT_HWCAP),
            libc::prctl(PR_GET_SHADOW_STACK_STATUS, &raw mut status, 0_u64, 0_u64, 0_u64),
            libc::prctl(PR_PAC_GET_ENABLED_KEYS, 0_u64, 0_u64, 0_u64, 0_u64),
        )
    };
    let status = (stacks == 0).then_some(status);
    aarch64(hwcap, status, u64::try_from(keys).ok(), code.snapshot().signs_return_addresses())
}

/// `status`: the features that `ARCH_SHSTK_STATUS` names; `thread`: the text of
/// `/proc/thread-self/status`, in case it does not.
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    allow(dead_code, reason = "for the architecture in its name")
)]
fn x86_64(status: Option<u64>, thread: Option<&str>) -> Option<ReturnProtection> {
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

/// `hwcap`: the auxiliary vector's word; `stacks`: what `PR_GET_SHADOW_STACK_STATUS` names; `keys`:
/// what `PR_PAC_GET_ENABLED_KEYS` does, which Linux before 5.13 has enabled all of without telling;
/// `signed`: whether registered code signs its return addresses.
#[cfg_attr(
    not(any(test, target_arch = "aarch64")),
    allow(dead_code, reason = "for the architecture in its name")
)]
fn aarch64(
    hwcap: u64,
    stacks: Option<u64>,
    keys: Option<u64>,
    signed: bool,
) -> Option<ReturnProtection> {
    const HWCAP_PACA: u64 = 1 << 30;
    const HWCAP_GCS: u64 = 1 << 32;
    const PR_SHADOW_STACK_ENABLE: u64 = 1;
    /// The two keys for addresses of code.
    const PR_PAC_APIAKEY_APIBKEY: u64 = 0b11;
    let stacks = hwcap & HWCAP_GCS != 0 && stacks.unwrap_or(0) & PR_SHADOW_STACK_ENABLE != 0;
    // Without the hardware, or with its keys disabled, the instructions that sign and check do
    // nothing.
    let signs = hwcap & HWCAP_PACA != 0
        && keys.unwrap_or(PR_PAC_APIAKEY_APIBKEY) & PR_PAC_APIAKEY_APIBKEY != 0;
    match () {
        () if stacks => Some(ReturnProtection::GuardedControlStack),
        () if signs && signed => Some(ReturnProtection::SignedReturns),
        () => None,
    }
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
            assert_eq!(x86_64(Some(status), None), found);
            assert_eq!(
                x86_64(Some(status), Some("x86_Thread_features:\tshstk\n")),
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
            assert_eq!(x86_64(None, Some(&file(features))), found, "{features}");
        }
        // What can be locked is no matter, and an old system has neither line.
        assert_eq!(x86_64(None, Some("x86_Thread_features_locked:\tshstk wrss\n")), None);
        assert_eq!((x86_64(None, Some("Name:\tminigo\n")), x86_64(None, None)), (None, None));
    }

    const PACA: u64 = 1 << 30;
    const GCS: u64 = 1 << 32;

    #[test]
    fn a_guarded_control_stack_is_in_use_where_it_is_there_and_enabled() {
        assert_eq!(aarch64(GCS, Some(1), Some(0), false), Some(GuardedControlStack));
        assert_eq!(aarch64(GCS | PACA, Some(0b111), Some(0b1111), true), Some(GuardedControlStack));
        for (hwcap, stacks) in
            [(GCS, Some(0)), (GCS, None), (0, Some(1)), (0, None), (GCS, Some(0b110))]
        {
            assert_eq!(aarch64(hwcap, stacks, Some(0), false), None, "{hwcap:#x} {stacks:?}");
        }
    }

    #[test]
    fn signatures_matter_where_the_code_signs_with_a_key_that_is_enabled() {
        for keys in [Some(0b0001), Some(0b0010), Some(0b1111), None] {
            assert_eq!(aarch64(PACA, None, keys, true), Some(SignedReturns), "{keys:?}");
            assert_eq!(aarch64(PACA, None, keys, false), None, "the code does not sign");
            assert_eq!(aarch64(0, None, keys, true), None, "its instructions do nothing");
        }
        // The keys for addresses of data are no matter.
        assert_eq!(aarch64(PACA, None, Some(0b1100), true), None);
    }
}
