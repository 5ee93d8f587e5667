//! What compiled code knows of types at run time: enough to print, compare, copy and allocate
//! values.

use super::interface::Method;
use std::sync::OnceLock;

/// The structure of a type.
#[derive(Debug)]
pub(crate) enum Shape {
    Bool,
    Int,
    Uint,
    Float,
    String,
    Pointer(&'static TypeInfo),
    Slice(&'static TypeInfo),
    Array(usize, &'static TypeInfo),
    Struct(Vec<FieldInfo>),
    /// Sorted names of the methods, with the compiler's numbers of their functions' types.
    Interface(Vec<(String, u32)>),
    Chan,
    Map(Box<super::map::MapType>),
    Func,
    /// The text of a run-time error: a string, printed as it is.
    Error,
    Opaque,
}

/// A field of a struct type.
#[derive(Debug)]
pub(crate) struct FieldInfo {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) ty: &'static TypeInfo,
}

/// One type. Values of interface type hold its address in their type word.
#[derive(Debug)]
pub(crate) struct TypeInfo {
    /// As `%T` prints it.
    pub(crate) name: String,
    /// Bytes of a value.
    pub(crate) size: usize,
    /// Which whole words of a value may hold references.
    pub(crate) words: Vec<bool>,
    /// The data word of an interface holds the value itself, not its address.
    pub(crate) direct: bool,
    /// What the heap calls arrays of this type.
    pub(crate) descriptor: usize,
    shape: OnceLock<Shape>,
    /// Set for a type with values that are converted to interfaces.
    methods: OnceLock<Vec<Method>>,
}

impl TypeInfo {
    pub(crate) fn new(name: String, size: usize, words: Vec<bool>, direct: bool) -> TypeInfo {
        let descriptor = super::alloc::descriptor(size, &words);
        TypeInfo {
            name,
            size,
            words,
            direct,
            descriptor,
            shape: OnceLock::new(),
            methods: OnceLock::new(),
        }
    }

    /// Whether a value may hold references.
    pub(crate) fn has_references(&self) -> bool {
        self.words.contains(&true)
    }

    /// Completes a type that was made before the types that it refers to.
    pub(crate) fn set_shape(&self, shape: Shape) {
        let _ = self.shape.set(shape);
    }

    pub(crate) fn set_methods(&self, methods: Vec<Method>) {
        let _ = self.methods.set(methods);
    }

    /// Its methods, if values of it are converted to interfaces.
    pub(crate) fn methods(&self) -> &[Method] {
        self.methods.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn method(&self, name: &str) -> Option<&Method> {
        self.methods.get()?.iter().find(|m| m.name == name)
    }

    pub(crate) fn has_method(&self, name: &str, signature: u32) -> bool {
        self.method(name).is_some_and(|m| m.signature == signature)
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.shape.get().unwrap_or(&Shape::Opaque)
    }

    pub(crate) fn has_refs(&self) -> bool {
        self.words.iter().any(|w| *w)
    }
}
