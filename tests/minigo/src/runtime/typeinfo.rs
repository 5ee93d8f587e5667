//! What compiled code knows of types at run time: enough to print, compare, copy and allocate values.

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
    Interface,
    Chan,
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
}

impl TypeInfo {
    pub(crate) fn new(name: String, size: usize, words: Vec<bool>, direct: bool) -> TypeInfo {
        let descriptor = super::alloc::descriptor(size, &words);
        TypeInfo { name, size, words, direct, descriptor, shape: OnceLock::new() }
    }

    /// Completes a type that was made before the types that it refers to.
    pub(crate) fn set_shape(&self, shape: Shape) {
        let _ = self.shape.set(shape);
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.shape.get().unwrap_or(&Shape::Opaque)
    }

    pub(crate) fn has_refs(&self) -> bool {
        self.words.iter().any(|w| *w)
    }
}
