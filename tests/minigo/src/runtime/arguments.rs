//! How natives see their arguments and results.

use super::typeinfo::TypeInfo;
use stackmark_asm::layout::GoroutineHeader;
use std::ffi::c_void;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The arguments of one call of a native: the first came in a register, the others are in the
/// goroutine's result words.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'g> {
    header: &'g GoroutineHeader,
    first: usize,
}

impl<'g> Arguments<'g> {
    /// # Safety
    /// `header` is the header of the goroutine that called out, and the value is not used after the
    /// native has ended.
    pub(crate) unsafe fn new(header: *mut c_void, first: usize) -> Self {
        // SAFETY: the caller's promise; headers are only ever shared.
        Arguments { header: unsafe { &*(header as *const GoroutineHeader) }, first }
    }

    pub(crate) fn get(&self, index: usize) -> usize {
        match index {
            0 => self.first,
            i => self.header.results[i].load(Relaxed) as usize,
        }
    }

    /// A type that the compiler passed.
    pub(crate) fn info(&self, index: usize) -> &'static TypeInfo {
        // SAFETY: compiled code passes the address of a leaked TypeInfo here.
        unsafe { &*(self.get(index) as *const TypeInfo) }
    }

    /// Bytes that the program passed as address and length, in this argument and the next.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let (at, len) = (self.get(index), self.get(index + 1));
        match len {
            0 => &[],
            // SAFETY: a Go string or byte slice: that many bytes lie there, and nothing is
            // collected while the native runs.
            len => unsafe { std::slice::from_raw_parts(at as *const u8, len) },
        }
    }

    /// One of the goroutine's words that belong to the language.
    pub(crate) fn language(&self, index: usize) -> &'g AtomicUsize {
        &self.header.language[index]
    }

    pub(crate) fn set(&self, index: usize, value: usize) {
        self.header.results[index].store(value as u64, Relaxed);
    }

    /// The address of a result word, for elements that travel there in their memory layout.
    pub(crate) fn element(&self) -> *mut u8 {
        self.header.results[1].as_ptr().cast()
    }
}

/// Defines native functions: `name(arguments) { … }` becomes a function that managed code calls
/// through `call_system`.
macro_rules! natives {
    ($($(#[$doc:meta])* fn $name:ident($args:ident) $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by managed code, through `call_system`, with the goroutine's header and what the
        /// compiler passes.
        // It has one address, by which a program that is built knows it.
        #[inline(never)]
        pub(crate) unsafe extern "C-unwind" fn $name(
            header: *mut std::ffi::c_void,
            first: usize,
        ) -> usize {
            // SAFETY: the contract of this function.
            let $args = unsafe { $crate::runtime::arguments::Arguments::new(header, first) };
            let _ = &$args;
            $body
        }
    )*};
}
pub(crate) use natives;
