//! A program that was compiled ahead of time, as the runtime that it is linked with makes it anew:
//! what its code refers to, its types, and what tracebacks show of its functions.
//!
//! Code refers to addresses by a table. Each is one of the runtime's own, or one that the compiler
//! has leaked: memory of a variable, a constant, a type. [`Image`] says what each of them is, and
//! [`Image::begin`] makes it. It goes into the executable as JSON.

use crate::code::{Code, OwnMethods, Role};
use crate::runtime::host;
use crate::runtime::interface::{Method, NO_METHOD};
use crate::runtime::map::MapType;
use crate::runtime::natives;
use crate::runtime::typeinfo::{FieldInfo, Shape, TypeInfo};
use serde::{Deserialize, Serialize};
use stackmark_cranelift::Program;
use stackmark_cranelift::linked::{LinkedFunction, ObjectFunction};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Why a program does not begin, or is not built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The code refers to something that the runtime does not make anew.
    #[error("the code of {file} refers to address {address:#x}, which has no meaning elsewhere")]
    Unknown { file: String, address: usize },
    /// The image is of another version.
    #[error("the program was built for another version of its runtime: {0}")]
    Version(String),
}

/// An address that code refers to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Address {
    /// A function of the runtime, by its place in [`natives::ALL`].
    Native(usize),
    /// The byte that code looks at before it stores.
    Flag,
    /// Where values without size are.
    NoSize,
    Type(usize),
    /// A package-level variable.
    Global(usize),
    /// The function object of code that captures nothing.
    Closure(usize),
    Text(String),
    /// The name of a method.
    Name(String),
    /// What a call through an interface remembers.
    CallSite,
}

/// A package-level variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Global {
    pub(crate) bytes: usize,
    pub(crate) has_references: bool,
    /// Code has its address.
    #[serde(skip)]
    pub(crate) at: usize,
}

#[derive(Debug, Serialize, Deserialize)]
enum TypeShape {
    Bool,
    Int,
    Uint,
    Float,
    String,
    Pointer(usize),
    Slice(usize),
    Array(usize, usize),
    Struct(Vec<(String, usize, usize)>),
    Interface(Vec<(String, u32)>),
    Chan,
    Map(usize, usize),
    Func,
    Opaque,
}

#[derive(Debug, Serialize, Deserialize)]
struct Type {
    name: String,
    size: usize,
    words: Vec<bool>,
    direct: bool,
    shape: TypeShape,
    /// Names, signatures and function objects.
    methods: Vec<(String, u32, usize)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Function {
    name: String,
    role: Role,
    len: usize,
    makes_room: bool,
    lines: Vec<(u32, u32)>,
    landing_pads: Vec<(u32, u32)>,
}

/// See the module. Functions, function objects, types and variables are known by their places.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    file: String,
    /// What the heap has registered, in this order.
    descriptors: Vec<(usize, Vec<bool>)>,
    types: Vec<Type>,
    globals: Vec<Global>,
    /// The functions of function objects.
    closures: Vec<usize>,
    addresses: Vec<Address>,
    functions: Vec<Function>,
    start: usize,
    entry: usize,
    raise: usize,
    error: (usize, u32),
    runtime_error: (usize, u32),
    text: usize,
}

/// What the compiler knows of a program, besides its code.
pub(crate) struct Compiled {
    pub(crate) file: String,
    pub(crate) types: Vec<&'static TypeInfo>,
    pub(crate) globals: Vec<Global>,
    /// Addresses of function objects, and their functions' places.
    pub(crate) closures: Vec<(usize, usize)>,
    /// What else the code may refer to.
    pub(crate) known: HashMap<usize, Address>,
    /// What it does refer to.
    pub(crate) addresses: Vec<usize>,
    pub(crate) functions: Vec<(ObjectFunction, Role)>,
    /// As [`Code`] has them, by their places.
    pub(crate) start: usize,
    pub(crate) entry: usize,
    pub(crate) raise: usize,
    pub(crate) own_methods: OwnMethods,
}

impl Image {
    /// # Errors
    /// [`ImageError::Unknown`].
    pub(crate) fn of(compiled: Compiled) -> Result<Image, ImageError> {
        let Compiled { file, types, globals, closures, known, addresses, functions, .. } = compiled;
        let closure_at: HashMap<usize, usize> =
            closures.iter().enumerate().map(|(place, (at, _))| (*at, place)).collect();
        let type_at: HashMap<usize, usize> = types
            .iter()
            .enumerate()
            .map(|(place, info)| (std::ptr::from_ref(*info) as usize, place))
            .collect();
        let global_at: HashMap<usize, usize> =
            globals.iter().enumerate().map(|(place, global)| (global.at, place)).collect();
        let native_at: HashMap<usize, usize> =
            natives::ALL.iter().enumerate().map(|(place, f)| (*f as usize, place)).collect();
        let unknown = |address| ImageError::Unknown { file: file.clone(), address };
        let type_of = |info: &TypeInfo| {
            let at = std::ptr::from_ref(info) as usize;
            type_at.get(&at).copied().ok_or_else(|| unknown(at))
        };
        let closure = |at: usize| closure_at.get(&at).copied().ok_or_else(|| unknown(at));
        let address = |at: &usize| {
            let found = native_at.get(at).map(|place| Address::Native(*place));
            let found = found.or_else(|| type_at.get(at).map(|place| Address::Type(*place)));
            let found = found.or_else(|| global_at.get(at).map(|place| Address::Global(*place)));
            let found = found.or_else(|| closure_at.get(at).map(|place| Address::Closure(*place)));
            let found = found.or_else(|| known.get(at).cloned());
            let found = found.or_else(|| match *at {
                at if at == natives::zero_size_address() => Some(Address::NoSize),
                at if at == host::barrier().flag() => Some(Address::Flag),
                _ => None,
            });
            found.ok_or_else(|| unknown(*at))
        };
        let shape = |info: &TypeInfo| {
            Ok(match info.shape() {
                Shape::Bool => TypeShape::Bool,
                Shape::Int => TypeShape::Int,
                Shape::Uint => TypeShape::Uint,
                Shape::Float => TypeShape::Float,
                Shape::String => TypeShape::String,
                Shape::Pointer(to) => TypeShape::Pointer(type_of(to)?),
                Shape::Slice(of) => TypeShape::Slice(type_of(of)?),
                Shape::Array(n, of) => TypeShape::Array(*n, type_of(of)?),
                Shape::Struct(fields) => {
                    let field = |f: &FieldInfo| Ok((f.name.clone(), f.offset, type_of(f.ty)?));
                    TypeShape::Struct(fields.iter().map(field).collect::<Result<_, ImageError>>()?)
                }
                Shape::Interface(methods) => TypeShape::Interface(methods.clone()),
                Shape::Chan => TypeShape::Chan,
                Shape::Map(map) => TypeShape::Map(type_of(map.key)?, type_of(map.elem)?),
                Shape::Func => TypeShape::Func,
                Shape::Error | Shape::Opaque => TypeShape::Opaque,
            })
        };
        let types = types
            .iter()
            .map(|info| {
                let method = |m: &Method| Ok((m.name.clone(), m.signature, closure(m.code)?));
                Ok(Type {
                    name: info.name.clone(),
                    size: info.size,
                    words: info.words.clone(),
                    direct: info.direct,
                    shape: shape(info)?,
                    methods: info.methods().iter().map(method).collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, ImageError>>()?;
        let addresses = addresses.iter().map(address).collect::<Result<_, _>>()?;
        let OwnMethods { error, runtime_error, text } = compiled.own_methods;
        Ok(Image {
            descriptors: host::descriptors(),
            types,
            addresses,
            start: closure(compiled.start)?,
            entry: compiled.entry,
            raise: compiled.raise,
            error: (closure(error.0)?, error.1),
            runtime_error: (closure(runtime_error.0)?, runtime_error.1),
            text,
            closures: closures.iter().map(|(_, function)| *function).collect(),
            globals,
            functions: functions
                .into_iter()
                .map(|(ObjectFunction { placed, landing_pads, .. }, role)| Function {
                    name: placed.name,
                    role,
                    len: placed.len,
                    makes_room: placed.makes_room,
                    lines: placed.lines,
                    landing_pads,
                })
                .collect(),
            file: file.clone(),
        })
    }

    /// The bytes of the symbol that a built program has: the length of the rest, and the rest.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("numbers, texts and lists of them");
        [&(text.len() as u64).to_le_bytes(), &text[..]].concat()
    }

    /// # Errors
    /// [`ImageError::Version`].
    ///
    /// # Safety
    /// `at` is the address of such bytes.
    pub(crate) unsafe fn read(at: *const u8) -> Result<Image, ImageError> {
        // SAFETY: our contract: the length, and as many bytes behind it.
        let text = unsafe {
            let len = at.cast::<u64>().read_unaligned();
            std::slice::from_raw_parts(at.add(8), len as usize)
        };
        serde_json::from_slice(text).map_err(|error| ImageError::Version(error.to_string()))
    }

    /// How many addresses and functions there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.addresses.len(), self.functions.len())
    }

    /// Makes what the code refers to, and fills the table. `functions` are where the linker has put
    /// them. The runtime is set up, and no managed code runs.
    ///
    /// # Errors
    /// [`ImageError::Version`].
    pub(crate) fn begin(
        self,
        table: &mut [usize],
        functions: &[usize],
    ) -> Result<Code, ImageError> {
        for (number, (words, references)) in self.descriptors.iter().enumerate() {
            if host::descriptor(*words, references) != number {
                return Err(ImageError::Version(format!("descriptor {number} is another one")));
            }
        }
        let leak = |word: usize| Box::leak(Box::new(word)) as *mut usize as usize;
        let closures: Vec<usize> = self.closures.iter().map(|f| leak(functions[*f])).collect();
        let types = types(&self.types, &closures);
        let globals: Vec<usize> = self
            .globals
            .iter()
            .map(|global| Vec::leak(vec![0_u64; global.bytes / 8]).as_ptr() as usize)
            .collect();
        let mut strings: HashMap<String, usize> = HashMap::new();
        for (word, address) in table.iter_mut().zip(self.addresses) {
            *word = match address {
                Address::Native(place) => *natives::ALL
                    .get(place)
                    .ok_or_else(|| ImageError::Version(format!("there is no native {place}")))?
                    as usize,
                Address::Flag => host::barrier().flag(),
                Address::NoSize => natives::zero_size_address(),
                Address::Type(place) => std::ptr::from_ref(types[place]) as usize,
                Address::Global(place) => globals[place],
                Address::Closure(place) => closures[place],
                Address::Text(text) => *strings
                    .entry(text)
                    .or_insert_with_key(|text| text.clone().leak().as_ptr() as usize),
                Address::Name(name) => Box::leak(Box::new(name)) as *mut String as usize,
                Address::CallSite => leak(NO_METHOD.as_ptr() as usize),
            };
        }
        let linked = |(f, start): (Function, &usize)| {
            let Function { name, role, len, makes_room, lines, landing_pads } = f;
            let start = *start;
            let linked = LinkedFunction { start, len, name, makes_room, lines, landing_pads };
            (linked, role)
        };
        let (linked, roles): (Vec<_>, Vec<_>) =
            self.functions.into_iter().zip(functions).map(linked).unzip();
        let (program, ids) = Program::of_linked(linked);
        let roles = ids.into_iter().zip(roles).filter(|(_, role)| *role != Role::Plain).collect();
        let method = |(closure, signature): (usize, u32)| (closures[closure], signature);
        Ok(Code {
            start: closures[self.start],
            entry: functions[self.entry],
            raise: functions[self.raise],
            file: self.file,
            exports: vec![],
            calls_c: false,
            own_methods: OwnMethods {
                error: method(self.error),
                runtime_error: method(self.runtime_error),
                text: functions[self.text],
            },
            program,
            roles,
            globals: self
                .globals
                .iter()
                .zip(globals)
                .filter(|(global, _)| global.has_references)
                .map(|(global, at)| (at, global.bytes))
                .collect(),
        })
    }
}

/// Makes the types. They refer to each other, so all are made before any has its shape.
fn types(types: &[Type], closures: &[usize]) -> Vec<&'static TypeInfo> {
    let made: Vec<&'static TypeInfo> = types
        .iter()
        .map(|Type { name, size, words, direct, .. }| {
            let info = TypeInfo::new(name.clone(), *size, words.clone(), *direct);
            &*Box::leak(Box::new(info))
        })
        .collect();
    for (info, ty) in made.iter().zip(types) {
        info.set_shape(match &ty.shape {
            TypeShape::Bool => Shape::Bool,
            TypeShape::Int => Shape::Int,
            TypeShape::Uint => Shape::Uint,
            TypeShape::Float => Shape::Float,
            TypeShape::String => Shape::String,
            TypeShape::Pointer(to) => Shape::Pointer(made[*to]),
            TypeShape::Slice(of) => Shape::Slice(made[*of]),
            TypeShape::Array(n, of) => Shape::Array(*n, made[*of]),
            TypeShape::Struct(fields) => {
                let field = |(name, offset, ty): &(String, usize, usize)| FieldInfo {
                    name: name.clone(),
                    offset: *offset,
                    ty: made[*ty],
                };
                Shape::Struct(fields.iter().map(field).collect())
            }
            TypeShape::Interface(methods) => Shape::Interface(methods.clone()),
            TypeShape::Chan => Shape::Chan,
            TypeShape::Map(key, elem) => {
                Shape::Map(Box::new(MapType::new(made[*key], made[*elem])))
            }
            TypeShape::Func => Shape::Func,
            TypeShape::Opaque => Shape::Opaque,
        });
        let method = |(name, signature, closure): &(String, u32, usize)| Method {
            name: name.clone(),
            signature: *signature,
            code: closures[*closure],
            remembered: OnceLock::new(),
        };
        info.set_methods(ty.methods.iter().map(method).collect());
    }
    made
}
