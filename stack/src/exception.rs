//! Exceptions of native code (Rust panics, C++ exceptions) that come up to managed code: catching
//! them at a call out, naming them, and handing them on.

use crate::machine::Caller;
use stackmark_asm as asm;
use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;

/// An exception that has left native code.
pub enum NativeException {
    /// A Rust panic: its payload.
    Panic(Box<dyn Any + Send>),
    /// An exception of another language.
    Foreign(ForeignException),
}

/// An exception that is not Rust's. Dropping it deletes it.
pub struct ForeignException(*mut c_void);

/// As Rust's standard library marks its own: the bytes in memory order.
const RUST_CLASS: u64 = u64::from_ne_bytes(*b"MOZ\0RUST");
/// As C++ does: the first byte is the highest, and the last one tells kinds apart.
const CXX_CLASS: u64 = u64::from_be_bytes(*b"GNUCC++\0");

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut c_void) -> c_int;
    fn _Unwind_DeleteException(exception: *mut c_void);
}

impl NativeException {
    /// Takes over an `_Unwind_Exception`.
    ///
    /// # Safety
    /// The exception is in flight, caught by nobody, and now the value's. If it is of Rust's class
    /// it is one of this program's copy of the standard library: it aborts at others, as any
    /// `catch_unwind` does.
    pub(crate) unsafe fn new(exception: *mut c_void) -> NativeException {
        // SAFETY: an exception begins with its class.
        if unsafe { *(exception as *const u64) } != RUST_CLASS {
            return NativeException::Foreign(ForeignException(exception));
        }
        // Only the standard library can open it, and count it as caught.
        let raise = AssertUnwindSafe(|| {
            // SAFETY: the exception is ours; it is thrown on.
            unsafe { _Unwind_RaiseException(exception) };
            unreachable!("catch_unwind is a handler");
        });
        match std::panic::catch_unwind(raise) {
            Ok(()) => unreachable!("raise does not return"),
            Err(payload) => NativeException::Panic(payload),
        }
    }

    /// Goes on unwinding with it.
    pub fn resume(self) -> ! {
        match self {
            NativeException::Panic(payload) => std::panic::resume_unwind(payload),
            NativeException::Foreign(exception) => {
                let exception = ManuallyDrop::new(exception).0;
                // SAFETY: in flight again, and no longer ours. It returns if there is no handler.
                unsafe { _Unwind_RaiseException(exception) };
                eprintln!("stackmark: an exception of native code finds no handler");
                std::process::abort()
            }
        }
    }
}

/// What it says: the text of a panic, the type of a C++ exception.
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
    /// The number by which its language marks its exceptions.
    pub fn class(&self) -> u64 {
        // SAFETY: an exception begins with its class, and we own it.
        unsafe { *(self.0 as *const u64) }
    }

    /// A function of the library that made the exception, which need not be visible to the program:
    /// the exception's second word is a function of it.
    fn runtime_function(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the words of an exception are its class and its cleanup function; dladdr fills
        // `info` or fails, and dlopen of a loaded library only counts.
        unsafe {
            let cleanup = *(self.0 as *const *const c_void).add(1);
            let mut info: libc::Dl_info = std::mem::zeroed();
            if cleanup.is_null() || libc::dladdr(cleanup, &mut info) == 0 {
                return None;
            }
            let library = libc::dlopen(info.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD);
            if library.is_null() {
                return None;
            }
            let found = libc::dlsym(library, name.as_ptr());
            // The exception's own code keeps it loaded.
            libc::dlclose(library);
            (!found.is_null()).then_some(found)
        }
    }

    /// The type of a C++ exception.
    fn cxx_type(&self) -> Option<String> {
        if self.class() & !0xff != CXX_CLASS {
            return None;
        }
        // libstdc++ and libc++abi keep `std::type_info *` as the first word of the ten that precede
        // the exception: the Itanium C++ ABI fixes it, since any thrower may be linked with any
        // catcher. A dependent exception keeps its own there too. Its name follows the pointer to
        // its virtual table.
        const HEADER_WORDS: usize = 10;
        // SAFETY: the class says that the header is there.
        let name = unsafe {
            let info = *(self.0 as *const *const *const c_char).sub(HEADER_WORDS);
            let name = *info.add(1);
            // A mark of names that are compared by address.
            name.add(usize::from(*name == b'*' as c_char))
        };
        type Demangle =
            unsafe extern "C" fn(*const c_char, *mut c_char, *mut usize, *mut c_int) -> *mut c_char;
        let mut text = std::ptr::null_mut();
        if let Some(demangle) = self.runtime_function(c"__cxa_demangle") {
            // SAFETY: the function's type is fixed by the ABI; null asks for memory of malloc's.
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
        // SAFETY: ours, caught and not thrown on.
        unsafe { _Unwind_DeleteException(self.0) }
    }
}

impl Caller<'_> {
    /// Calls `f`, typically a foreign call, and catches an exception that leaves it: a Rust panic,
    /// a C++ exception. A host turns it into a panic of its own language. What has crossed managed
    /// frames on its way has settled their barriers, and guards like that of [`Caller::foreign`]
    /// have run: the goroutine is as it was before the call. Forced unwinding passes:
    /// [`Caller::unwind_to`], a thread that ends.
    ///
    /// # Errors
    /// The exception.
    pub fn catch_native<R>(self, f: impl FnOnce() -> R) -> Result<R, NativeException> {
        struct Call<F, R> {
            f: Option<F>,
            result: Option<R>,
        }
        unsafe extern "C-unwind" fn call<F: FnOnce() -> R, R>(argument: *mut c_void) {
            // SAFETY: catch_native passes its own call, which outlives us.
            let call = unsafe { &mut *(argument as *mut Call<F, R>) };
            let f = call.f.take().expect("called once");
            call.result = Some(f());
        }
        fn of<F: FnOnce() -> R, R>(_: &Call<F, R>) -> asm::CaughtFn {
            call::<F, R>
        }
        let mut call = Call { f: Some(f), result: None };
        // SAFETY: the function fits its argument.
        let exception = unsafe { asm::catch(of(&call), (&raw mut call).cast()) };
        match call.result {
            Some(result) => Ok(result),
            // SAFETY: it has left `f`, and nobody else has caught it.
            None => Err(unsafe { NativeException::new(exception) }),
        }
    }
}
