//! Methods by name: calls through interfaces, type assertions, and the texts of errors and
//! Stringers.

use super::arguments::natives;
use super::fail::{self, RuntimeError};
use super::format::{Any, Value};
use super::host;
use super::panic;
use super::typeinfo::{Shape, TypeInfo};
use crate::code::OwnMethods;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A method of a type.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    /// The compiler's number of the type of its function.
    pub(crate) signature: u32,
    /// The address of the word that holds the address of the code, which takes an interface value's
    /// data word first.
    pub(crate) code: usize,
    /// The pair that call sites remember: the type and the address of the code.
    pub(crate) remembered: OnceLock<[usize; 2]>,
}

impl Method {
    fn code(&self) -> usize {
        // SAFETY: a word that the compiler has leaked, and filled before the program began.
        unsafe { *(self.code as *const usize) }
    }
}

/// The pair of a call site that has not run yet: no type.
pub(crate) static NO_METHOD: [usize; 2] = [0; 2];
/// Offset of the code in the pair that a call site remembers.
pub(crate) const CACHED_CODE: i32 = 8;

/// The methods of the runtime's errors.
static OWN: OnceLock<[Method; 2]> = OnceLock::new();
/// The managed function that calls a method for its text.
static TEXT: AtomicUsize = AtomicUsize::new(0);

const ERROR: &str = "Error";
const RUNTIME_ERROR: &str = "RuntimeError";

/// Registers what the compiler has made for the runtime.
pub(crate) fn set_own_methods(own: &OwnMethods) {
    let method = |name: &str, (code, signature)| Method {
        name: name.into(),
        signature,
        code,
        remembered: OnceLock::new(),
    };
    let _ = OWN.set([method(ERROR, own.error), method(RUNTIME_ERROR, own.runtime_error)]);
    // Relaxed: set before the program begins.
    TEXT.store(own.text, Ordering::Relaxed);
}

fn method(info: &'static TypeInfo, name: &str) -> Option<&'static Method> {
    match info.shape() {
        Shape::Error => {
            let has = name != RUNTIME_ERROR || fail::is_runtime_error(info);
            OWN.get()?.iter().find(|m| has && m.name == name)
        }
        _ => info.method(name),
    }
}

fn check_methods(info: &'static TypeInfo, wanted: &[(String, u32)]) -> Result<(), String> {
    let missing =
        wanted.iter().find(|(name, sig)| method(info, name).is_none_or(|m| m.signature != *sig));
    missing.map_or(Ok(()), |(name, _)| Err(name.clone()))
}

/// A request to `minigo.text`: the text of a value.
#[repr(C)]
struct Text {
    header: usize,
    code: usize,
    data: usize,
    answer: Answer,
}

/// What a method has done that was asked for a text.
pub(crate) enum Answer {
    Text(Vec<u8>),
    /// It has panicked with this value.
    Panic(Panicked),
}

/// The value of a panic, kept alive.
pub(crate) struct Panicked {
    pub(crate) value: Any,
    _alive: host::Held,
}

/// The method by which a value makes its own text, of `names` the first that it has.
pub(crate) fn text_method(ty: &'static TypeInfo, names: &[&str]) -> Option<&'static Method> {
    let signature = OWN.get()?[0].signature;
    if matches!(ty.shape(), Shape::Error) {
        return None;
    }
    names.iter().find_map(|name| method(ty, name).filter(|m| m.signature == signature))
}

/// Calls such a method. Other code runs meanwhile and collections happen: the caller holds what it
/// reads afterwards.
pub(crate) fn ask_text(m: &Method, v: &Value) -> Answer {
    let data = if v.ty.direct { v.word(0) } else { v.at };
    let (header, code) = (host::current_header(), m.code());
    let mut asked = Text { header, code, data, answer: Answer::Text(vec![]) };
    host::call_back(TEXT.load(Ordering::Relaxed), &raw mut asked as usize);
    asked.answer
}

natives! {
    /// (type word, name, the word of the call site) -> the code of the method; the call site
    /// remembers it.
    fn find_method(a) {
        // SAFETY: compiled code passes a type, a leaked string and a leaked word.
        let (name, place) =
            unsafe { (&*(a.get(1) as *const String), &*(a.get(2) as *const AtomicUsize)) };
        let m = method(a.info(0), name)
            .expect("the value was converted to an interface with this method");
        let pair = m.remembered.get_or_init(|| [a.get(0), m.code()]);
        // The method of the runtime's errors has several types: only the first is remembered.
        if pair[0] == a.get(0) {
            // Release: a reader of the address also sees the pair behind it.
            place.store(pair.as_ptr() as usize, Ordering::Release);
        }
        m.code()
    }

    /// (type word, interface type) -> 1 if values of the type implement it.
    fn implements(a) {
        if a.get(0) == 0 {
            return 0;
        }
        match a.info(1).shape() {
            Shape::Interface(wanted) => usize::from(check_methods(a.info(0), wanted).is_ok()),
            _ => 0,
        }
    }

    /// (type word, wanted type, the operand's type) -> the words of the error of a failed
    /// assertion, in the result words.
    fn assertion_error(a) {
        let wanted = &a.info(1).name;
        let source = &a.info(2).name;
        let text = match (a.get(0), a.info(1).shape()) {
            (0, Shape::Interface(_)) => {
                format!("interface conversion: interface is nil, not {wanted}")
            }
            (0, _) => format!("interface conversion: {source} is nil, not {wanted}"),
            (_, Shape::Interface(methods)) => {
                let missing = check_methods(a.info(0), methods).err().unwrap_or_default();
                let name = &a.info(0).name;
                format!("interface conversion: {name} is not {wanted}: missing method {missing}")
            }
            _ => format!("interface conversion: {source} is {}, not {wanted}", a.info(0).name),
        };
        panic::return_error(&a, &RuntimeError::assertion(text))
    }

    /// (what `ask_text` asked, address, length): the text that a method has returned.
    fn take_text(a) {
        let text = a.bytes(1).to_vec();
        // SAFETY: ask_text waits for it.
        unsafe { (*(a.get(0) as *mut Text)).answer = Answer::Text(text) };
        0
    }

    /// (what `ask_text` asked, type word, data word): the value with which a method has panicked;
    /// nil if it has not.
    fn take_panic(a) {
        // SAFETY: the words are those of an interface value.
        if let Some(ty) = unsafe { (a.get(1) as *const TypeInfo).as_ref() } {
            let data = a.get(2);
            let value = Any { ty: Some(ty), data };
            let panicked = Panicked { value, _alive: host::hold(data) };
            // SAFETY: ask_text waits for it.
            unsafe { (*(a.get(0) as *mut Text)).answer = Answer::Panic(panicked) };
        }
        0
    }
}

/// A panic's value as text, if it is an error or a Stringer. Ends the process if its method panics.
pub(crate) fn panic_value_text(value: &Any) -> Option<Vec<u8>> {
    let v = value.value()?;
    let m = text_method(v.ty, &[ERROR, "String"])?;
    match ask_text(m, &v) {
        Answer::Text(text) => Some(text),
        Answer::Panic(p) => {
            let ty = p.value.ty.expect("a panic's value that is not nil");
            let what = match (ty.shape(), p.value.value()) {
                (Shape::String, Some(v)) if ty.name == "string" => {
                    String::from_utf8_lossy(v.bytes()).into_owned()
                }
                _ => format!("type {}", ty.name),
            };
            fail::die(&format!("fatal error: panic while printing panic value: {what}"))
        }
    }
}
