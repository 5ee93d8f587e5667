//! Exceptions of native code, for example Rust panics and C++ exceptions, that reach managed code:
//! taking them over, naming them, and throwing them on.

use crate::os;
use stackmark_asm as asm;
use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;

/// An exception that has left native code.
pub enum NativeException {
    /// The payload of a Rust panic.
    Panic(Box<dyn Any + Send>),
    /// An exception of another language.
    Foreign(ForeignException),
}

/// An exception that is not Rust's. Dropping it deletes it.
pub struct ForeignException(*mut c_void);

/// The class of Rust's exceptions: its bytes in memory order.
const RUST_CLASS: u64 = u64::from_ne_bytes(*b"MOZ\0RUST");
/// The class of C++ exceptions: the first byte is the highest, and the last one tells kinds apart.
const CXX_CLASS: u64 = u64::from_be_bytes(*b"GNUCC++\0");

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut c_void) -> c_int;
    fn _Unwind_DeleteException(exception: *mut c_void);
}

/// Throws an `_Unwind_Exception`, for the first time or again.
///
/// # Safety
/// The exception is not in flight, or has been caught. It is no longer the caller's.
pub(crate) unsafe extern "C-unwind" fn throw(exception: *mut c_void) -> ! {
    // SAFETY: our contract. The call returns if there is no handler.
    unsafe { _Unwind_RaiseException(exception) };
    eprintln!("stackmark: an exception of native code finds no handler");
    std::process::abort()
}

impl NativeException {
    /// Takes over an `_Unwind_Exception`.
    ///
    /// # Safety
    /// The exception is in flight and not caught. The value owns it from now on. An exception of
    /// Rust's class comes from this program's copy of the standard library: with another one the
    /// process aborts, as in any `catch_unwind`.
    pub(crate) unsafe fn new(exception: *mut c_void) -> NativeException {
        // SAFETY: an exception begins with its class.
        if unsafe { *(exception as *const u64) } != RUST_CLASS {
            return NativeException::Foreign(ForeignException(exception));
        }
        // Only the standard library can take out the payload and count the panic as caught.
        let raise = AssertUnwindSafe(|| {
            // SAFETY: the exception is ours; it is thrown again.
            unsafe { _Unwind_RaiseException(exception) };
            unreachable!("catch_unwind is a handler");
        });
        match std::panic::catch_unwind(raise) {
            Ok(()) => unreachable!("raise does not return"),
            Err(payload) => NativeException::Panic(payload),
        }
    }

    /// Continues the unwinding with this exception.
    pub fn resume(self) -> ! {
        match self {
            NativeException::Panic(payload) => std::panic::resume_unwind(payload),
            NativeException::Foreign(exception) => {
                let exception = ManuallyDrop::new(exception).0;
                // SAFETY: no longer ours.
                unsafe { throw(exception) }
            }
        }
    }
}

/// The message: the text of a panic, the type of a C++ exception.
impl fmt::Display for NativeException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NativeException::Panic(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                f.write_str(
                    text.or(payload.downcast_ref::<String>().map(|s| &**s))
                        .unwrap_or("Box<dyn Any>"),
                )
            }
            NativeException::Foreign(exception) => match exception.cxx_type() {
                Some(name) => write!(f, "C++ exception of type {name}"),
                None => write!(f, "exception of class {:#018x}", exception.class()),
            },
        }
    }
}

impl fmt::Debug for NativeException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeException({self})")
    }
}

impl ForeignException {
    /// The exception's class: the number by which its language marks its exceptions.
    pub fn class(&self) -> u64 {
        // SAFETY: an exception begins with its class, and we own it.
        asm::unwinding::class(unsafe { *self.0.cast() })
    }

    /// A function of the library that made the exception. The library need not be visible to the
    /// program: behind the exception's class is the address of one of its functions.
    fn runtime_function(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: an exception begins with its class and its cleanup function.
        let cleanup = unsafe { *(self.0 as *const u64).add(1).cast::<*const c_void>() };
        os::function_of_library(cleanup, name)
    }

    /// The type of a C++ exception.
    fn cxx_type(&self) -> Option<String> {
        if self.class() & !0xff != CXX_CLASS {
            return None;
        }
        // libstdc++ and libc++abi have `std::type_info *` first in the header before the exception.
        // The Itanium C++ ABI fixes this layout, since any thrower may be linked with any catcher.
        // A dependent exception has it there too. In `type_info` the name follows the pointer to
        // the virtual table.
        // SAFETY: the class says that the header is there.
        let name = unsafe {
            let header = self.0.cast::<u8>().sub(asm::CXX_HEADER_BYTES);
            let info = *header.cast::<*const *const c_char>();
            let name = *info.add(1);
            // `*` marks names that are compared by address.
            name.add(usize::from(*name == b'*' as c_char))
        };
        type Demangle =
            unsafe extern "C" fn(*const c_char, *mut c_char, *mut usize, *mut c_int) -> *mut c_char;
        let mut text = std::ptr::null_mut();
        if let Some(demangle) = self.runtime_function(c"__cxa_demangle") {
            // SAFETY: the function's type is fixed by the ABI; null asks for memory from malloc.
            unsafe {
                let demangle = std::mem::transmute::<*mut c_void, Demangle>(demangle);
                text = demangle(name, std::ptr::null_mut(), std::ptr::null_mut(), &mut 0);
            }
        }
        let shown = if text.is_null() { name } else { text };
        // SAFETY: both are C strings; free takes null.
        unsafe {
            let owned = CStr::from_ptr(shown).to_string_lossy().into_owned();
            libc::free(text.cast());
            Some(owned)
        }
    }
}

impl fmt::Debug for ForeignException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForeignException({:#x})", self.class())
    }
}

impl Drop for ForeignException {
    fn drop(&mut self) {
        // SAFETY: the exception is ours, caught and not thrown again.
        unsafe { _Unwind_DeleteException(self.0) }
    }
}
