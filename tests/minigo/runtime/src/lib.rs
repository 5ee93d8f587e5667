//! What programs that `minigo build` has made are linked with: their runtime, by the one function
//! that their `main` calls.

use std::ffi::c_int;

/// Runs the program. It ends the process.
///
/// # Safety
/// Called once, by the `main` of a program that minigo has built, with its three symbols.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minigo_main(
    addresses: *mut usize,
    functions: *const usize,
    image: *const u8,
) -> c_int {
    // SAFETY: our contract.
    let not_run = unsafe { minigo::run_built(addresses, functions, image) };
    not_run.report();
    not_run.status.into()
}
