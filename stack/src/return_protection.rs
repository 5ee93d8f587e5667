//! Hardware that protects return addresses: with it a hijacked return faults, so barriers are off.

/// Whether this thread's returns are checked against a shadow stack (x86 CET; `ARCH_SHSTK_STATUS` of Linux 6.6). A system
/// that does not know the question has none.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_active() -> bool {
    const ARCH_SHSTK_STATUS: libc::c_int = 0x5005;
    const ARCH_SHSTK_SHSTK: u64 = 1;
    let mut features: u64 = 0;
    // SAFETY: the call writes one word to where it is told, or fails.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SHSTK_STATUS, &raw mut features) };
    result == 0 && features & ARCH_SHSTK_SHSTK != 0
}
