//! Run-time errors and panics: Go's messages, then the end of the process with status 2.

use super::arguments::{Arguments, natives};
use super::typeinfo::{Shape, TypeInfo};
use super::{host, output, print};

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

/// Ends the process: flushes what the program has printed, writes the message and the goroutine's traceback.
pub(crate) fn die(message: &str) -> ! {
    output::flush();
    output::error(message.as_bytes());
    output::error(b"\n\n");
    output::error(host::traceback().as_bytes());
    host::exit(2)
}

/// A run-time error as a panic.
pub(crate) fn runtime_error(message: &str) -> ! {
    die(&format!("panic: runtime error: {message}"))
}

pub(crate) fn out_of_memory(why: &str) -> ! {
    die(&format!("fatal error: out of memory\n{why}"))
}

fn bounds(failure: Failure, x: i64, y: i64) -> String {
    match (failure, x < 0) {
        (Failure::Index, false) => format!("index out of range [{x}] with length {y}"),
        (Failure::Index, true) => format!("index out of range [{x}]"),
        (Failure::SliceLen, false) => format!("slice bounds out of range [:{x}] with length {y}"),
        (Failure::SliceCap, false) => format!("slice bounds out of range [:{x}] with capacity {y}"),
        (Failure::SliceLen | Failure::SliceCap, true) => format!("slice bounds out of range [:{x}]"),
        (Failure::SliceLow, false) => format!("slice bounds out of range [{x}:{y}]"),
        (Failure::SliceLow, true) => format!("slice bounds out of range [{x}:]"),
        (Failure::Slice3Cap, false) => format!("slice bounds out of range [::{x}] with capacity {y}"),
        (Failure::Slice3Cap, true) => format!("slice bounds out of range [::{x}]"),
        (Failure::Slice3High, false) => format!("slice bounds out of range [:{x}:{y}]"),
        (Failure::Slice3High, true) => format!("slice bounds out of range [:{x}:]"),
        (_, false) => format!("slice bounds out of range [{x}:{y}:]"),
        (_, true) => format!("slice bounds out of range [{x}::]"),
    }
}

fn report(failure: Failure, a: &Arguments<'_>) -> ! {
    match failure {
        Failure::Divide => runtime_error("integer divide by zero"),
        Failure::NegativeShift => runtime_error("negative shift amount"),
        Failure::NilDereference => die("panic: runtime error: invalid memory address or nil pointer dereference\n\
             [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x0]"),
        Failure::MakeLen => runtime_error("makeslice: len out of range"),
        Failure::MakeCap => runtime_error("makeslice: cap out of range"),
        Failure::MakeChan => die("panic: makechan: size out of range"),
        Failure::GoNil => die("fatal error: go of nil func value"),
        Failure::SendClosed => die("panic: send on closed channel"),
        _ => runtime_error(&bounds(failure, a.get(1) as i64, a.get(2) as i64)),
    }
}

/// A panic's value as Go's runtime prints it.
///
/// # Safety
/// The words are those of an interface value.
unsafe fn panic_text(ty: usize, data: usize) -> Vec<u8> {
    if ty == 0 {
        return b"nil".to_vec();
    }
    // SAFETY: a type word that is not nil is the address of a leaked TypeInfo, and the data word fits it.
    unsafe {
        let info = &*(ty as *const TypeInfo);
        let basic = !info.name.contains('.');
        let plain: Option<Vec<u8>> = match info.shape() {
            Shape::Bool => Some(format!("{}", *(data as *const u8) != 0).into_bytes()),
            Shape::Int => Some(format!("{}", print::signed(data, info.size)).into_bytes()),
            Shape::Uint => Some(format!("{}", print::unsigned(data, info.size)).into_bytes()),
            Shape::Float => Some(print::runtime_float(print::float(data, info.size)).into_bytes()),
            Shape::String => {
                let (at, len) = (*(data as *const usize), *((data + 8) as *const usize));
                Some(if len == 0 { vec![] } else { std::slice::from_raw_parts(at as *const u8, len).to_vec() })
            }
            _ => None,
        };
        match (plain, basic, info.shape()) {
            (Some(text), true, _) => text,
            (Some(text), false, Shape::String) => [info.name.as_bytes(), b"(\"", &text, b"\")"].concat(),
            (Some(text), false, _) => [info.name.as_bytes(), b"(", &text, b")"].concat(),
            (None, ..) => format!("({}) {data:#x}", info.name).into_bytes(),
        }
    }
}

natives! {
    /// (which, x, y): a check has failed.
    fn fail(a) {
        report(ALL[a.get(0)], &a)
    }

    /// (type word, data word): `panic(v)`.
    fn panic_value(a) {
        // SAFETY: compiled code passes the words of an interface value.
        let text = unsafe { panic_text(a.get(0), a.get(1)) };
        output::flush();
        output::error(b"panic: ");
        output::error(&text);
        output::error(b"\n\n");
        output::error(host::traceback().as_bytes());
        host::exit(2)
    }
}
