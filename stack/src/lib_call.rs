//! Library and system calls whose parameters, results and errno live in the machine.
//!
//! They may not live on the goroutine's stack: a callback moves it while the library writes them
//! (Go's issue 10406). A callback may make library calls of its own: [`Caller::callback`] saves and
//! restores the one under way.

use crate::machine::Caller;

/// Parameters a library call has at most.
const PARAMETERS: usize = 6;

/// A library call: what was called, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LibCall {
    /// The function's address; 0 when none is under way.
    pub function: usize,
    /// Its arguments.
    pub arguments: [usize; PARAMETERS],
    /// What it returned, once it has.
    pub result: usize,
    /// `errno` after it, which was 0 before it.
    pub error: i32,
}

type Function = unsafe extern "C-unwind" fn(usize, usize, usize, usize, usize, usize) -> usize;

impl Caller<'_> {
    /// Calls the C function at `function` with these integers or pointers, as a [foreign
    /// call](Caller::foreign); result and errno are left in the machine's record, and returned.
    ///
    /// # Panics
    /// With more than six arguments.
    ///
    /// # Safety
    /// The function takes these arguments and no others, and returns an integer or a pointer or
    /// nothing.
    pub unsafe fn lib_call(self, function: usize, arguments: &[usize]) -> LibCall {
        let mut call = LibCall { function, ..LibCall::default() };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        let record = &self.shared.lib_call;
        record.set(call);
        self.foreign(|| {
            let [a, b, c, d, e, f] = record.get().arguments;
            // SAFETY: by our contract; registers that it does not look at do no harm.
            unsafe {
                let errno = libc::__errno_location();
                *errno = 0;
                let result =
                    std::mem::transmute::<usize, Function>(record.get().function)(a, b, c, d, e, f);
                record.set(LibCall { result, error: *errno, ..record.get() });
            }
        });
        let done = record.get();
        record.set(LibCall { function: 0, ..done });
        done
    }

    /// The library call under way on this machine, or the last one, whose function is 0 then.
    pub fn last_lib_call(&self) -> LibCall {
        self.shared.lib_call.get()
    }
}
