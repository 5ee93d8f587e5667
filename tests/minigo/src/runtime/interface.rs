//! Methods by name: calls through interfaces, type assertions, and the texts of errors and
//! Stringers.

use super::arguments::natives;
use super::fail::RuntimeError;
use super::format::Value;
use super::host;
use super::panic;
use super::typeinfo::{Shape, TypeInfo};
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
    /// It dereferences a pointer that may be nil.
    pub(crate) derefs: bool,
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

/// The method that makes errors of the runtime errors.
static ERROR: OnceLock<Method> = OnceLock::new();
/// The managed function that calls a method for its text.
static TEXT: AtomicUsize = AtomicUsize::new(0);

/// Registers what the compiler has made for the runtime: the word with the code of the errors'
/// method, the number of the type `func() string`, and the address of the managed function that
/// calls such a method.
pub(crate) fn set_own_methods(code: usize, signature: u32, text: usize) {
    let _ = ERROR.set(Method {
        name: "Error".into(),
        signature,
        code,
        derefs: false,
        remembered: OnceLock::new(),
    });
    // Relaxed: set before the program begins.
    TEXT.store(text, Ordering::Relaxed);
}

fn method(info: &'static TypeInfo, name: &str) -> Option<&'static Method> {
    match info.shape() {
        Shape::Error => ERROR.get().filter(|m| m.name == name),
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
    text: Vec<u8>,
}

/// What `Error` or `String` returns, if the value has one of them. None also if the method would
/// surely fail: it dereferences a nil pointer.
pub(crate) fn text_of(v: &Value) -> Option<Vec<u8>> {
    let signature = ERROR.get()?.signature;
    if matches!(v.ty.shape(), Shape::Error) {
        return None;
    }
    let usable = |name| method(v.ty, name).filter(|m| m.signature == signature);
    let m = usable("Error").or_else(|| usable("String"))?;
    let data = if v.ty.direct { v.word(0) } else { v.at };
    if m.derefs && data == 0 {
        return Some(b"<nil>".to_vec());
    }
    let mut asked = Text { header: host::current_header(), code: m.code(), data, text: vec![] };
    host::call_back(TEXT.load(Ordering::Relaxed), &raw mut asked as usize);
    Some(asked.text)
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

    /// (what `text_of` asked, address, length): the text that a method has returned.
    fn take_text(a) {
        let text = a.bytes(1).to_vec();
        // SAFETY: text_of waits for it.
        unsafe { (*(a.get(0) as *mut Text)).text = text };
        0
    }
}

/// A panic's value as text, if it is an error or a Stringer.
pub(crate) fn panic_value_text(ty: usize, data: usize) -> Option<Vec<u8>> {
    // SAFETY: the words of an interface value: a leaked TypeInfo or nil, and data of that type.
    let info = unsafe { (ty as *const TypeInfo).as_ref() }?;
    let at = if info.direct { &raw const data as usize } else { data };
    // SAFETY: as above.
    let info: &'static TypeInfo = unsafe { &*std::ptr::from_ref(info) };
    text_of(&Value { ty: info, at })
}
