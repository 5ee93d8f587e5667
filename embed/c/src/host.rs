//! The host: a table of functions.

use std::error::Error;
use std::ffi::{CString, c_char, c_int, c_void};

use stackmark::stack::{Goroutine, Host, NativeException};

use crate::abi::{User, Versioned, text};

/// `stackmark_host`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostTable {
    pub(crate) size: usize,
    pub(crate) user: *mut c_void,
    pub(crate) stack_overflow: Option<extern "C" fn(*mut c_void, *const Goroutine, usize)>,
    pub(crate) fatal: Option<extern "C" fn(*mut c_void, *const c_char)>,
    pub(crate) uncaught: Option<extern "C" fn(*mut c_void, *const Goroutine, *const c_char)>,
    pub(crate) source:
        Option<extern "C" fn(*mut c_void, usize, *mut *const c_char, *mut u32) -> c_int>,
    pub(crate) warn: Option<extern "C" fn(*mut c_void, *const c_char)>,
    pub(crate) machine_attached: Option<extern "C" fn(*mut c_void) -> usize>,
    pub(crate) machine_detached: Option<extern "C" fn(*mut c_void, usize)>,
    pub(crate) goroutine_exited: Option<extern "C" fn(*mut c_void, *const Goroutine, usize)>,
    pub(crate) at_poll: Option<extern "C" fn(*mut c_void, *const Goroutine)>,
    pub(crate) destroyed: Option<extern "C" fn(*mut c_void)>,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for HostTable {}

/// The host of a runtime in C.
pub(crate) struct CHost {
    table: HostTable,
    user: User,
}

// SAFETY: functions, and the pointer that is in `user`, too.
unsafe impl Send for CHost {}
// SAFETY: as above.
unsafe impl Sync for CHost {}

impl CHost {
    pub(crate) fn new(table: HostTable) -> CHost {
        CHost { table, user: User(table.user) }
    }

    fn user(&self) -> *mut c_void {
        self.user.pointer()
    }
}

fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}

impl Host for CHost {
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> ! {
        if let Some(f) = self.table.stack_overflow {
            f(self.user(), goroutine, limit);
        }
        panic!("goroutine {}: its stack exceeds {limit} bytes", goroutine.id())
    }

    fn fatal(&self, error: &dyn Error) -> ! {
        if let Some(f) = self.table.fatal {
            f(self.user(), c_text(&error.to_string()).as_ptr());
        }
        eprintln!("stackmark: {error}");
        std::process::abort()
    }

    fn uncaught(&self, goroutine: &Goroutine, exception: NativeException) -> NativeException {
        if let Some(f) = self.table.uncaught {
            f(self.user(), goroutine, c_text(&exception.to_string()).as_ptr());
        }
        exception
    }

    fn source(&self, pc: usize) -> Option<(String, u32)> {
        let (mut file, mut line) = (std::ptr::null(), 0);
        let found = self.table.source?(self.user(), pc, &mut file, &mut line);
        // SAFETY: the header asks for a string that ends with 0.
        (found != 0).then(|| (unsafe { text(file) }, line))
    }

    fn warn(&self, message: &str) {
        match self.table.warn {
            Some(f) => f(self.user(), c_text(message).as_ptr()),
            None => eprintln!("stackmark: {message}"),
        }
    }

    fn machine_attached(&self) -> usize {
        self.table.machine_attached.map_or(0, |f| f(self.user()))
    }

    fn machine_detached(&self, word: usize) {
        if let Some(f) = self.table.machine_detached {
            f(self.user(), word);
        }
    }

    fn goroutine_exited(&self, goroutine: &Goroutine, result: usize) {
        if let Some(f) = self.table.goroutine_exited {
            f(self.user(), goroutine, result);
        }
    }

    fn at_poll(&self, goroutine: &Goroutine) {
        if let Some(f) = self.table.at_poll {
            f(self.user(), goroutine);
        }
    }
}

impl Drop for CHost {
    fn drop(&mut self) {
        if let Some(f) = self.table.destroyed {
            f(self.user());
        }
    }
}
