//! What crosses to C: errors, structs that begin with their size, texts, arrays.

use stackmark::stack::ending;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Once;

/// Error codes of the header.
macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(pub(crate) const $name: c_int = $value;)*

        /// All codes, by their names in C, for the test that compares them.
        #[cfg(test)]
        pub(crate) const CODES: &[(&str, c_int)] =
            &[$((concat!("STACKMARK_", stringify!($name)), $name)),*];

        /// What a code means.
        fn meaning(code: c_int) -> &'static CStr {
            const TEXTS: &[(c_int, &CStr)] = &[$(($value, $text)),*];
            TEXTS.iter().find(|(value, _)| *value == code).map_or(c"unknown code", |(_, text)| text)
        }
    };
}

codes! {
    OK = 0, c"no error";
    INVALID = 1, c"an argument is invalid";
    NO_MEMORY = 2, c"the system gives no memory";
    HEAP_FULL = 3, c"the heap is full";
    BAD_CODE = 4, c"the code cannot be registered";
    ATTACHED = 5, c"the thread is attached already";
    NOT_ATTACHED = 6, c"the thread is not attached, or runs no goroutine";
    NOT_FOREIGN = 7, c"no foreign call is under way";
    SIGNAL_HANDLER = 8, c"not in a signal handler";
    OUTSIDE = 9, c"the thread does not count as running";
    NO_FRAME = 10, c"there is no such frame";
    WALK = 11, c"the stack cannot be walked";
    IN_USE = 12, c"there is one already";
    SYSTEM = 13, c"the system refuses";
    EXCEPTION = 14, c"an exception was caught";
    NO_ANCHOR = 15, c"managed code has called the native code without call_native";
}

/// Why a function fails: a code, and a text for people.
#[derive(Debug)]
pub(crate) struct Failure {
    code: c_int,
    text: String,
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    pub(crate) fn new(code: c_int, error: impl Display) -> Failure {
        Failure { code, text: error.to_string() }
    }

    pub(crate) fn invalid(text: impl Display) -> Failure {
        Failure::new(INVALID, text)
    }
}

/// The argument `name`, which may not be null.
pub(crate) fn given<T>(argument: Option<T>, name: &str) -> Result<T, Failure> {
    argument.ok_or_else(|| Failure::invalid(format_args!("{name} is NULL")))
}

/// Where a result goes.
#[repr(transparent)]
pub(crate) struct Out<'o, T>(*mut T, PhantomData<&'o mut T>);

impl<'o, T> Out<'o, T> {
    /// The place, for the argument `name`.
    pub(crate) fn given(self, name: &str) -> Result<&'o mut MaybeUninit<T>, Failure> {
        check_place(self.0, name)?;
        // SAFETY: the header asks for a place of the caller's, writable, for as long as the call
        // lasts.
        Ok(unsafe { &mut *self.0.cast() })
    }

    /// As [`Out::given`]; `None` for NULL. For functions that have no way to fail: the process ends
    /// with one line.
    pub(crate) fn get(self, name: &str) -> Option<&'o mut MaybeUninit<T>> {
        let place = (!self.0.is_null()).then(|| self.given(name))?;
        Some(place.unwrap_or_else(|failure| panic!("{failure}")))
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The code of an outcome. The text of a failure is this thread's last one from now on.
pub(crate) fn code(outcome: Result<(), Failure>) -> c_int {
    let Err(failure) = outcome else { return OK };
    let text = CString::new(failure.text.replace('\0', "?")).unwrap_or_default();
    // A thread that is ending has no place for a text.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
    failure.code
}

/// Makes a value, and writes it to `out`, named `name`.
pub(crate) fn make<T>(
    out: Out<'_, T>,
    name: &str,
    f: impl FnOnce() -> Result<T, Failure>,
) -> c_int {
    code(out.given(name).and_then(|out| {
        f().map(|value| {
            out.write(value);
        })
    }))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_error_text() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_error_name(code: c_int) -> *const c_char {
    meaning(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Has a panic end the process with one line: it must not unwind into C. No destructors run, since
/// other threads still run.
pub(crate) fn end_with_panics() {
    unsafe extern "C" {
        fn _exit(status: c_int) -> !;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            ending::claim();
            let text = info.payload_as_str().unwrap_or("a panic without a message");
            let mut line = String::from("stackmark: the process ends: ");
            let _ = write!(line, "{}", text.replace('\n', " "));
            if let Some(place) = info.location() {
                let _ = write!(line, " ({}:{})", place.file(), place.line());
            }
            line.push('\n');
            let _ = std::io::stderr().write_all(line.as_bytes());
            // SAFETY: ends the process.
            unsafe { _exit(2) }
        }));
    });
}

/// Calls a function of the embedder that must not throw, where an exception would get into frames
/// that have no way to stop it. One ends the process with a line.
pub(crate) fn without_exceptions(f: impl FnOnce()) {
    // The convention alone stops exceptions.
    extern "C" fn stop(f: impl FnOnce()) {
        f();
    }
    stop(f);
}

/// A struct that C gives or takes. It begins with its size in bytes, as a `size_t`.
///
/// # Safety
/// The struct is `repr(C)`, its first field is a `usize`, and it may be all zeros.
pub(crate) unsafe trait Versioned: Copy {}

/// The struct at `at`. What the caller's version of it lacks is 0; null is all 0.
///
/// # Errors
/// The size is none that a version of the struct has had, or the caller's version is newer and asks
/// for something that this one does not know.
///
/// # Safety
/// `at` is null, or points to such a struct of the size that it begins with.
pub(crate) unsafe fn read<T: Versioned>(at: *const T, name: &str) -> Result<T, Failure> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: all zeros are valid, by `Versioned`; the rest by our contract.
    unsafe {
        if !at.is_null() {
            let size = check(at, name)?;
            let common = size.min(size_of::<T>());
            value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(at.cast(), common);
            let newer = std::slice::from_raw_parts(at.cast::<u8>().add(common), size - common);
            if newer.iter().any(|byte| *byte != 0) {
                let text = "this version of the library does not know a field that is set";
                return Err(Failure::invalid(format_args!("{name}: {text}")));
            }
        }
        Ok(value.assume_init())
    }
}

/// Writes as much of a struct as the caller's version of it has. Its size stays.
///
/// # Errors
/// As for [`read`].
///
/// # Safety
/// `at` is null, or points to such a struct, writable, of the size that it begins with.
pub(crate) unsafe fn write<T: Versioned>(at: *mut T, name: &str, value: T) -> Result<(), Failure> {
    let word = size_of::<usize>();
    // SAFETY: by our contract.
    unsafe {
        let size = check(at, name)?;
        let from = (&raw const value).cast::<u8>().add(word);
        let common = size.min(size_of::<T>()) - word;
        at.cast::<u8>().add(word).copy_from_nonoverlapping(from, common);
        at.cast::<u8>().add(word + common).write_bytes(0, size - word - common);
    }
    Ok(())
}

/// The size of a struct that [`write`] will be given.
///
/// # Safety
/// As for [`write`].
pub(crate) unsafe fn check<T: Versioned>(at: *const T, name: &str) -> Result<usize, Failure> {
    check_place(at, name)?;
    // SAFETY: by our contract.
    unsafe { checked_size(at, name) }
}

/// No struct of the interface will be larger: a larger size is a word that was never set.
const LARGEST: usize = 1 << 14;

/// # Safety
/// `at` points to a `usize`.
unsafe fn checked_size<T>(at: *const T, name: &str) -> Result<usize, Failure> {
    // SAFETY: by our contract.
    let size = unsafe { at.cast::<usize>().read() };
    if size < size_of::<usize>() || size > LARGEST || !size.is_multiple_of(size_of::<usize>()) {
        let text = format_args!("{name}: its size field, {size}, is not the size of the struct");
        return Err(Failure::invalid(text));
    }
    Ok(size)
}

/// An array. Null is empty if its length is 0.
///
/// # Safety
/// `at` points to `length` values, which stay as they are as long as the slice is used.
pub(crate) unsafe fn slice<'s, T>(
    at: *const T,
    length: usize,
    name: &str,
) -> Result<&'s [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    check_array(at, length, size_of::<T>(), name)?;
    // SAFETY: by our contract. It is aligned, and no longer than an array can be.
    Ok(unsafe { std::slice::from_raw_parts(at, length) })
}

/// Checks what can be checked of an array of `count` values, each of `stride` bytes.
pub(crate) fn check_array<T>(
    at: *const T,
    count: usize,
    stride: usize,
    name: &str,
) -> Result<(), Failure> {
    check_place(at, name)?;
    let bytes = count.checked_mul(stride).filter(|bytes| isize::try_from(*bytes).is_ok());
    let text = format_args!("{name}: an array of {count} times {stride} bytes is impossible");
    bytes.map(drop).ok_or_else(|| Failure::invalid(text))
}

/// Checks that a pointer is not null, and aligned.
pub(crate) fn check_place<T>(at: *const T, name: &str) -> Result<(), Failure> {
    given((!at.is_null()).then_some(()), name)?;
    let text = format_args!("{name}: {at:p} is not aligned to {} bytes", align_of::<T>());
    at.is_aligned().then_some(()).ok_or_else(|| Failure::invalid(text))
}

/// An array of structs that begin with their size, each as large as the first.
///
/// # Safety
/// `at` points to so many structs, each of the size that it begins with.
pub(crate) unsafe fn structs<T: Versioned>(
    at: *const T,
    count: usize,
    name: &str,
) -> Result<Vec<T>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: by our contract.
    unsafe {
        let stride = check(at, name)?;
        check_array(at, count, stride, name)?;
        (0..count)
            .map(|i| {
                let at = at.cast::<u8>().add(i * stride).cast::<T>();
                let size = at.cast::<usize>().read();
                if size != stride {
                    let text =
                        format_args!("{name}[{i}]: its size is {size}, the first's {stride}");
                    return Err(Failure::invalid(text));
                }
                read(at, name)
            })
            .collect()
    }
}

/// Writes to an array of structs, each as large as the first, which holds its size.
///
/// # Safety
/// There is room for all of them; the first begins with its size.
pub(crate) unsafe fn put_structs<T: Versioned>(
    at: *mut T,
    name: &str,
    values: impl Iterator<Item = T>,
) -> Result<(), Failure> {
    let mut stride = 0;
    for (i, value) in values.enumerate() {
        // SAFETY: by our contract.
        unsafe {
            if i == 0 {
                stride = check(at, name)?;
            }
            let place = at.cast::<u8>().add(i * stride).cast::<T>();
            place.cast::<usize>().write(stride);
            write(place, name, value)?;
        }
    }
    Ok(())
}

/// A text of C. Null is empty.
///
/// # Safety
/// `at` is null, or a string that ends with 0.
pub(crate) unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: by our contract.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

/// Writes a text and a 0 to a buffer of `capacity` bytes, as much as fits. Returns the text's
/// length in bytes.
///
/// # Safety
/// The buffer is writable, or `capacity` is 0.
pub(crate) unsafe fn put_text(text: &str, buffer: *mut c_char, capacity: usize) -> usize {
    if let Some(most) = capacity.checked_sub(1).filter(|_| !buffer.is_null()) {
        let taken = text.len().min(most);
        // SAFETY: by our contract.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), taken);
            buffer.add(taken).write(0);
        }
    }
    text.len()
}

/// The embedder's pointer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: the header says which functions are called on any thread; the library hands the pointer
// to them and does nothing else with it.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    pub(crate) fn pointer(self) -> *mut c_void {
        self.0
    }
}
