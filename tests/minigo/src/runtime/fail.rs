//! Run-time errors: their values and texts, and the end of a process that one is fatal to.

use super::arguments::Arguments;
use super::typeinfo::{Shape, TypeInfo};
use super::{alloc, host, output, print, string, traceback};
use parking_lot::Mutex;
use std::borrow::Cow;

/// The checks that compiled code makes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(usize)]
pub(crate) enum Failure {
    Index,
    SliceLen,
    SliceCap,
    SliceLow,
    Slice3Cap,
    Slice3High,
    Slice3Low,
    Divide,
    NegativeShift,
    NilDereference,
    MakeLen,
    MakeCap,
    MakeChan,
    GoNil,
    SendClosed,
}

const ALL: [Failure; 15] = [
    Failure::Index,
    Failure::SliceLen,
    Failure::SliceCap,
    Failure::SliceLow,
    Failure::Slice3Cap,
    Failure::Slice3High,
    Failure::Slice3Low,
    Failure::Divide,
    Failure::NegativeShift,
    Failure::NilDereference,
    Failure::MakeLen,
    Failure::MakeCap,
    Failure::MakeChan,
    Failure::GoNil,
    Failure::SendClosed,
];

/// A run-time error as a value: what `recover` gives, and what an unrecovered panic prints.
#[derive(Debug)]
pub(crate) struct RuntimeError {
    /// Go's name of the type.
    type_name: &'static str,
    /// What its method `Error` would return.
    text: Cow<'static, str>,
}

const NIL_DEREFERENCE: &str = "runtime error: invalid memory address or nil pointer dereference";

impl RuntimeError {
    /// An error of the program: `runtime error: TEXT`.
    pub(crate) fn error(text: String) -> RuntimeError {
        RuntimeError {
            type_name: "runtime.errorString",
            text: format!("runtime error: {text}").into(),
        }
    }

    /// A type assertion that does not hold.
    pub(crate) fn assertion(text: String) -> RuntimeError {
        RuntimeError { type_name: "*runtime.TypeAssertionError", text: text.into() }
    }

    /// What native code has thrown.
    pub(crate) fn native(text: String) -> RuntimeError {
        RuntimeError { type_name: "runtime.nativeException", text: text.into() }
    }

    /// An error number of a C function.
    pub(crate) fn errno(text: String) -> RuntimeError {
        RuntimeError { type_name: "syscall.Errno", text: text.into() }
    }

    /// An error without the prefix `runtime error: `.
    pub(crate) fn plain(text: &'static str) -> RuntimeError {
        RuntimeError { type_name: "runtime.plainError", text: text.into() }
    }
}

/// Whether the type of a runtime's error is one of package runtime: those implement
/// `runtime.Error`.
pub(crate) fn is_runtime_error(info: &TypeInfo) -> bool {
    info.name.trim_start_matches('*').starts_with("runtime.")
}

/// The words of an interface value that holds an error.
pub(crate) fn error_value(error: &RuntimeError) -> (usize, usize) {
    static TYPES: Mutex<Vec<&'static TypeInfo>> = Mutex::new(vec![]);
    let mut types = TYPES.lock();
    let info = match types.iter().find(|t| t.name == error.type_name) {
        Some(info) => *info,
        None => {
            let info: &'static TypeInfo = Box::leak(Box::new(TypeInfo::new(
                error.type_name.into(),
                16,
                vec![true, false],
                false,
            )));
            info.set_shape(Shape::Error);
            types.push(info);
            info
        }
    };
    drop(types);
    let (at, len) = string::new_string(&[error.text.as_bytes()]);
    let data = alloc::array(info, 1);
    if host::reports_stores() {
        host::shade(at);
    }
    // SAFETY: a new object of two words.
    unsafe { *(data as *mut [usize; 2]) = [at, len] };
    (std::ptr::from_ref(info) as usize, data)
}

/// Whether the words are those of the error of a nil dereference.
pub(crate) fn is_nil_dereference(ty: usize, data: usize) -> bool {
    // SAFETY: the words of an interface value: a leaked TypeInfo or nil, and data of that type.
    unsafe {
        let Some(info) = (ty as *const TypeInfo).as_ref() else { return false };
        matches!(info.shape(), Shape::Error) && panic_text(ty, data) == NIL_DEREFERENCE.as_bytes()
    }
}

/// Ends the process: writes the message and the goroutine's traceback.
pub(crate) fn die(message: &str) -> ! {
    end(format!("{message}\n").as_bytes())
}

/// As `die`, with whole lines.
pub(crate) fn end(message: &[u8]) -> ! {
    host::end(2, || output::error(&[message, b"\n", traceback::current().as_bytes()].concat()))
}

/// An allocation has failed: a panic, or the end of the process where there is not even room for
/// its value.
pub(crate) fn out_of_memory(why: &str) -> ! {
    if alloc::has_room() {
        super::panic::raise(RuntimeError::error(why.to_owned()));
    }
    die(&format!("fatal error: out of memory\n{why}"))
}

fn bounds(failure: Failure, x: i64, y: i64) -> String {
    match (failure, x < 0) {
        (Failure::Index, false) => format!("index out of range [{x}] with length {y}"),
        (Failure::Index, true) => format!("index out of range [{x}]"),
        (Failure::SliceLen, false) => format!("slice bounds out of range [:{x}] with length {y}"),
        (Failure::SliceCap, false) => format!("slice bounds out of range [:{x}] with capacity {y}"),
        (Failure::SliceLen | Failure::SliceCap, true) => {
            format!("slice bounds out of range [:{x}]")
        }
        (Failure::SliceLow, false) => format!("slice bounds out of range [{x}:{y}]"),
        (Failure::SliceLow, true) => format!("slice bounds out of range [{x}:]"),
        (Failure::Slice3Cap, false) => {
            format!("slice bounds out of range [::{x}] with capacity {y}")
        }
        (Failure::Slice3Cap, true) => format!("slice bounds out of range [::{x}]"),
        (Failure::Slice3High, false) => format!("slice bounds out of range [:{x}:{y}]"),
        (Failure::Slice3High, true) => format!("slice bounds out of range [:{x}:]"),
        (_, false) => format!("slice bounds out of range [{x}:{y}:]"),
        (_, true) => format!("slice bounds out of range [{x}::]"),
    }
}

/// The error of a check that compiled code has made: which, and two words for the message.
pub(crate) fn failure(a: &Arguments<'_>) -> RuntimeError {
    let failure = ALL[a.get(0)];
    let error = |text: &str| RuntimeError::error(text.into());
    match failure {
        Failure::Divide => error("integer divide by zero"),
        Failure::NegativeShift => error("negative shift amount"),
        Failure::NilDereference => {
            RuntimeError { type_name: "runtime.errorString", text: NIL_DEREFERENCE.into() }
        }
        Failure::MakeLen => error("makeslice: len out of range"),
        Failure::MakeCap => error("makeslice: cap out of range"),
        Failure::MakeChan => RuntimeError::plain("makechan: size out of range"),
        Failure::GoNil => die("fatal error: go of nil func value"),
        Failure::SendClosed => RuntimeError::plain("send on closed channel"),
        _ => {
            let text = bounds(failure, a.get(1) as i64, a.get(2) as i64);
            RuntimeError {
                type_name: "runtime.boundsError",
                text: format!("runtime error: {text}").into(),
            }
        }
    }
}

/// A panic's value as Go's runtime prints it.
///
/// # Safety
/// The words are those of an interface value.
pub(crate) unsafe fn panic_text(ty: usize, data: usize) -> Vec<u8> {
    if ty == 0 {
        return b"nil".to_vec();
    }
    // SAFETY: a type word that is not nil is the address of a leaked TypeInfo, and the data word
    // fits it.
    unsafe {
        let info = &*(ty as *const TypeInfo);
        let basic = !info.name.contains('.');
        let plain: Option<Vec<u8>> = match info.shape() {
            Shape::Bool => Some(format!("{}", *(data as *const u8) != 0).into_bytes()),
            Shape::Int => Some(format!("{}", print::signed(data, info.size)).into_bytes()),
            Shape::Uint => Some(format!("{}", print::unsigned(data, info.size)).into_bytes()),
            Shape::Float => Some(print::runtime_float(print::float(data, info.size)).into_bytes()),
            Shape::String | Shape::Error => {
                let (at, len) = (*(data as *const usize), *((data + 8) as *const usize));
                Some(if len == 0 {
                    vec![]
                } else {
                    std::slice::from_raw_parts(at as *const u8, len).to_vec()
                })
            }
            _ => None,
        };
        match (plain, basic, info.shape()) {
            (Some(text), true, _) | (Some(text), _, Shape::Error) => text,
            (Some(text), false, Shape::String) => {
                [info.name.as_bytes(), b"(\"", &text, b"\")"].concat()
            }
            (Some(text), false, _) => [info.name.as_bytes(), b"(", &text, b")"].concat(),
            (None, ..) => format!("({}) {data:#x}", info.name).into_bytes(),
        }
    }
}
