//! Types as the back end sees them: interned by identity, with Go's memory layout and the words
//! that hold references.

use crate::cgo::source::c_name;
use crate::runtime::map::MapType;
use crate::runtime::typeinfo::{FieldInfo, Shape, TypeInfo};
use cranelift_codegen::ir::{self, types as clif};
use go_types::typ::{BasicType, Type};
use go_types::{ObjKey, TCObjects, TypeKey};
use std::collections::HashMap;
use std::rc::Rc;

/// A struct of more words than this lives in memory, a smaller one in SSA values.
const MAX_COMPONENTS: usize = 8;

/// An interned type: two are equal exactly if Go calls the types identical.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Ty(u32);

impl Ty {
    /// By which the runtime tells types from each other.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Direction {
    Both,
    Send,
    Receive,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Ty,
    pub(crate) embedded: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sig {
    pub(crate) params: Vec<Ty>,
    pub(crate) results: Vec<Ty>,
    pub(crate) variadic: bool,
}

/// The structure of a type; of a named type, that of its underlying type.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Bool,
    /// `name` tells int from int64.
    Int {
        bits: u8,
        signed: bool,
        name: &'static str,
    },
    Float {
        bits: u8,
    },
    String,
    UnsafePointer,
    /// The type of `nil` where nothing else is known.
    Nil,
    Pointer(Ty),
    Slice(Ty),
    Array(u64, Ty),
    Struct(Rc<[Field]>),
    Func(Rc<Sig>),
    Chan(Direction, Ty),
    /// Sorted names of the methods with the signatures.
    Interface(Rc<[(String, Ty)]>),
    Map(Ty, Ty),
    Tuple(Rc<[Ty]>),
    /// Not supported: its name, for the message.
    Unsupported(&'static str),
}

/// One machine word, or less, of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Component {
    pub(crate) clif: ir::Type,
    pub(crate) offset: u32,
    pub(crate) is_ref: bool,
}

/// How values of a type are laid out in memory and in SSA values.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) size: u64,
    pub(crate) align: u64,
    /// For each whole word of the memory: may it hold a reference?
    pub(crate) words: Rc<[bool]>,
    /// The SSA values that make up a value; None: such a value is the address of its memory.
    pub(crate) components: Option<Rc<[Component]>>,
}

impl Layout {
    pub(crate) fn has_refs(&self) -> bool {
        self.words.iter().any(|w| *w)
    }
}

struct Data {
    kind: Kind,
    name: String,
    /// The declared type's object, if it is a named type.
    named: Option<ObjKey>,
    layout: Option<Rc<Layout>>,
    info: Option<&'static TypeInfo>,
}

/// The interner.
pub(crate) struct Types {
    all: Vec<Data>,
    by_kind: HashMap<Kind, Ty>,
    by_key: HashMap<TypeKey, Ty>,
    by_named: HashMap<ObjKey, Ty>,
    pub(crate) basic: Basic,
}

/// Types that the compiler itself needs.
#[derive(Clone, Copy)]
pub(crate) struct Basic {
    pub(crate) bool: Ty,
    pub(crate) int: Ty,
    pub(crate) int32: Ty,
    pub(crate) uint8: Ty,
    pub(crate) float64: Ty,
    pub(crate) string: Ty,
    pub(crate) any: Ty,
}

impl Types {
    pub(crate) fn new() -> Types {
        let t = Ty(0);
        let basic = Basic { bool: t, int: t, int32: t, uint8: t, float64: t, string: t, any: t };
        let mut s = Types {
            all: vec![],
            by_kind: HashMap::new(),
            by_key: HashMap::new(),
            by_named: HashMap::new(),
            basic,
        };
        s.basic = Basic {
            bool: s.intern(Kind::Bool),
            int: s.intern(int(64, true, "int")),
            int32: s.intern(int(32, true, "int32")),
            uint8: s.intern(int(8, false, "uint8")),
            float64: s.intern(Kind::Float { bits: 64 }),
            string: s.intern(Kind::String),
            any: s.intern(Kind::Interface(Rc::new([]))),
        };
        s
    }

    pub(crate) fn intern(&mut self, kind: Kind) -> Ty {
        if let Some(t) = self.by_kind.get(&kind) {
            return *t;
        }
        let name = self.name_of_kind(&kind);
        let t = self.push(kind.clone(), name, None);
        self.by_kind.insert(kind, t);
        t
    }

    fn push(&mut self, kind: Kind, name: String, named: Option<ObjKey>) -> Ty {
        self.all.push(Data { kind, name, named, layout: None, info: None });
        Ty(self.all.len() as u32 - 1)
    }

    pub(crate) fn kind(&self, t: Ty) -> &Kind {
        &self.all[t.0 as usize].kind
    }

    pub(crate) fn name(&self, t: Ty) -> &str {
        &self.all[t.0 as usize].name
    }

    pub(crate) fn is_named(&self, t: Ty) -> bool {
        self.all[t.0 as usize].named.is_some()
    }

    pub(crate) fn pointer_to(&mut self, t: Ty) -> Ty {
        self.intern(Kind::Pointer(t))
    }

    pub(crate) fn is_interface(&self, t: Ty) -> bool {
        matches!(self.kind(t), Kind::Interface(_))
    }

    /// The type that the front end calls `key`.
    pub(crate) fn of(&mut self, key: TypeKey, tc: &TCObjects) -> Ty {
        if let Some(t) = self.by_key.get(&key) {
            return *t;
        }
        let t = self.convert(key, tc);
        self.by_key.insert(key, t);
        t
    }

    fn convert(&mut self, key: TypeKey, tc: &TCObjects) -> Ty {
        let of_var = |s: &mut Types, v: &ObjKey| match tc.lobjs[*v].typ() {
            Some(t) => s.of(t, tc),
            None => s.intern(Kind::Unsupported("a value without a type")),
        };
        let kind = match &tc.types[key] {
            Type::Basic(b) => basic(b.typ()),
            Type::Named(n) => {
                let Some(obj) = *n.obj() else {
                    return self.intern(Kind::Unsupported("a type without a name"));
                };
                if let Some(t) = self.by_named.get(&obj) {
                    return *t;
                }
                let o = &tc.lobjs[obj];
                let own = match c_name(o.name()) {
                    // As cgo names them.
                    Some((_, name)) => format!("_Ctype_{name}"),
                    None => o.name().clone(),
                };
                let name = match o.pkg().and_then(|p| tc.pkgs[p].name().clone()) {
                    Some(p) => format!("{p}.{own}"),
                    None => own,
                };
                let t = self.push(Kind::Unsupported("a recursive type"), name, Some(obj));
                self.by_named.insert(obj, t);
                self.by_key.insert(key, t);
                let under = go_types::typ::deep_underlying_type(key, tc);
                let under = self.of(under, tc);
                self.all[t.0 as usize].kind = self.kind(under).clone();
                return t;
            }
            Type::Pointer(p) => Kind::Pointer(self.of(p.base(), tc)),
            Type::Slice(s) => Kind::Slice(self.of(s.elem(), tc)),
            Type::Array(a) => match a.len() {
                Some(n) => Kind::Array(n, self.of(a.elem(), tc)),
                None => Kind::Unsupported("array of unknown length"),
            },
            Type::Chan(c) => {
                let dir = match c.dir() {
                    go_types::typ::ChanDir::SendRecv => Direction::Both,
                    go_types::typ::ChanDir::SendOnly => Direction::Send,
                    go_types::typ::ChanDir::RecvOnly => Direction::Receive,
                };
                Kind::Chan(dir, self.of(c.elem(), tc))
            }
            Type::Map(m) => {
                let (k, v) = (self.of(m.key(), tc), self.of(m.elem(), tc));
                Kind::Map(k, v)
            }
            Type::Struct(s) => {
                let mut fields = vec![];
                for f in s.fields() {
                    let o = &tc.lobjs[*f];
                    fields.push(Field {
                        name: o.name().clone(),
                        ty: of_var(self, f),
                        embedded: o.var_embedded(),
                    });
                }
                Kind::Struct(fields.into())
            }
            Type::Tuple(t) => {
                let all: Vec<Ty> = t.vars().iter().map(|v| of_var(self, v)).collect();
                Kind::Tuple(all.into())
            }
            Type::Signature(s) => {
                let mut list = |k: TypeKey| match &tc.types[k] {
                    Type::Tuple(t) => t.vars().iter().map(|v| of_var(self, v)).collect(),
                    _ => vec![],
                };
                let (params, results) = (list(s.params()), list(s.results()));
                Kind::Func(Rc::new(Sig { params, results, variadic: s.variadic() }))
            }
            Type::Interface(i) => {
                i.complete(tc);
                let mut methods = vec![];
                if let Some(all) = i.all_methods().as_ref() {
                    for m in all {
                        methods.push((tc.lobjs[*m].name().clone(), of_var(self, m)));
                    }
                }
                Kind::Interface(methods.into())
            }
        };
        self.intern(kind)
    }

    fn name_of_kind(&self, kind: &Kind) -> String {
        let list = |l: &[Ty]| l.iter().map(|t| self.name(*t)).collect::<Vec<_>>().join(", ");
        match kind {
            Kind::Bool => "bool".into(),
            Kind::Int { name, .. } => (*name).into(),
            Kind::Float { bits } => format!("float{bits}"),
            Kind::String => "string".into(),
            Kind::UnsafePointer => "unsafe.Pointer".into(),
            Kind::Nil => "nil".into(),
            Kind::Pointer(t) => format!("*{}", self.name(*t)),
            Kind::Slice(t) => format!("[]{}", self.name(*t)),
            Kind::Array(n, t) => format!("[{n}]{}", self.name(*t)),
            Kind::Struct(f) if f.is_empty() => "struct {}".into(),
            Kind::Struct(f) => {
                let f: Vec<String> = f
                    .iter()
                    .map(|f| {
                        if f.embedded {
                            self.name(f.ty).into()
                        } else {
                            format!("{} {}", f.name, self.name(f.ty))
                        }
                    })
                    .collect();
                format!("struct {{ {} }}", f.join("; "))
            }
            Kind::Func(s) => {
                let params: Vec<String> = s
                    .params
                    .iter()
                    .enumerate()
                    .map(|(i, t)| match self.kind(*t) {
                        Kind::Slice(e) if s.variadic && i + 1 == s.params.len() => {
                            format!("...{}", self.name(*e))
                        }
                        _ => self.name(*t).into(),
                    })
                    .collect();
                let params = params.join(", ");
                match &s.results[..] {
                    [] => format!("func({params})"),
                    [r] => format!("func({params}) {}", self.name(*r)),
                    r => format!("func({params}) ({})", list(r)),
                }
            }
            Kind::Chan(Direction::Both, t) => format!("chan {}", self.name(*t)),
            Kind::Chan(Direction::Send, t) => format!("chan<- {}", self.name(*t)),
            Kind::Chan(Direction::Receive, t) => format!("<-chan {}", self.name(*t)),
            Kind::Interface(m) if m.is_empty() => "interface {}".into(),
            Kind::Interface(m) => {
                let m: Vec<String> = m
                    .iter()
                    .map(|(n, t)| format!("{n}{}", self.name(*t).trim_start_matches("func")))
                    .collect();
                format!("interface {{ {} }}", m.join("; "))
            }
            Kind::Map(k, v) => format!("map[{}]{}", self.name(*k), self.name(*v)),
            Kind::Tuple(l) => format!("({})", list(l)),
            Kind::Unsupported(what) => (*what).into(),
        }
    }

    /// The first part of `t` that this back end cannot represent.
    pub(crate) fn unsupported(&self, t: Ty) -> Option<&'static str> {
        fn go(s: &Types, t: Ty, seen: &mut Vec<Ty>) -> Option<&'static str> {
            if seen.contains(&t) {
                return None;
            }
            seen.push(t);
            match s.kind(t) {
                Kind::Unsupported(what) => Some(what),
                Kind::Map(k, v) => go(s, *k, seen).or_else(|| go(s, *v, seen)),
                Kind::Pointer(e) | Kind::Slice(e) | Kind::Array(_, e) | Kind::Chan(_, e) => {
                    go(s, *e, seen)
                }
                Kind::Struct(f) => f.iter().find_map(|f| go(s, f.ty, seen)),
                Kind::Func(sig) => {
                    sig.params.iter().chain(&sig.results).find_map(|t| go(s, *t, seen))
                }
                Kind::Tuple(l) => l.iter().find_map(|t| go(s, *t, seen)),
                _ => None,
            }
        }
        go(self, t, &mut vec![])
    }

    pub(crate) fn layout(&mut self, t: Ty) -> Rc<Layout> {
        if let Some(l) = &self.all[t.0 as usize].layout {
            return l.clone();
        }
        let one = |clif: ir::Type, is_ref: bool| {
            let size = u64::from(clif.bytes());
            let component = Component { clif, offset: 0, is_ref };
            let words: Rc<[bool]> = if size == 8 { Rc::new([is_ref]) } else { Rc::new([]) };
            Layout { size, align: size, words, components: Some(Rc::new([component])) }
        };
        let words = |refs: &[bool]| {
            let components: Rc<[Component]> = refs
                .iter()
                .enumerate()
                .map(|(i, r)| Component { clif: clif::I64, offset: 8 * i as u32, is_ref: *r })
                .collect();
            Layout {
                size: 8 * refs.len() as u64,
                align: 8,
                words: refs.into(),
                components: Some(components),
            }
        };
        let layout = match self.kind(t).clone() {
            Kind::Bool => one(clif::I8, false),
            Kind::Int { bits: 8, .. } => one(clif::I8, false),
            Kind::Int { bits: 16, .. } => one(clif::I16, false),
            Kind::Int { bits: 32, .. } => one(clif::I32, false),
            Kind::Int { .. } => one(clif::I64, false),
            Kind::Float { bits: 32 } => one(clif::F32, false),
            Kind::Float { .. } => one(clif::F64, false),
            Kind::String => words(&[true, false]),
            Kind::Slice(_) => words(&[true, false, false]),
            Kind::Interface(_) => words(&[false, true]),
            Kind::Tuple(_) | Kind::Unsupported(_) => words(&[]),
            Kind::Pointer(_)
            | Kind::Func(_)
            | Kind::Chan(..)
            | Kind::Map(..)
            | Kind::UnsafePointer
            | Kind::Nil => one(clif::I64, true),
            Kind::Array(n, e) => {
                let e = self.layout(e);
                let size = e.size.saturating_mul(n);
                let mut map = vec![];
                if e.has_refs() {
                    for _ in 0..n {
                        map.extend_from_slice(&e.words);
                    }
                } else {
                    map = vec![false; usize::try_from(size / 8).unwrap_or(0).min(1 << 24)];
                }
                Layout { size, align: e.align, words: map.into(), components: None }
            }
            Kind::Struct(fields) => {
                let (mut size, mut align) = (0u64, 1u64);
                let mut map: Vec<bool> = vec![];
                let mut components = Some(vec![]);
                for f in fields.iter() {
                    let l = self.layout(f.ty);
                    size = size.next_multiple_of(l.align);
                    align = align.max(l.align);
                    if l.has_refs() {
                        map.resize((size / 8) as usize, false);
                        map.extend_from_slice(&l.words);
                    }
                    match (&mut components, &l.components) {
                        (Some(all), Some(c)) => all.extend(c.iter().map(|c| Component {
                            offset: c.offset + u32::try_from(size).unwrap_or(0),
                            ..*c
                        })),
                        _ => components = None,
                    }
                    size += l.size;
                }
                // Go pads a struct that ends in a zero-size field, so that the field's address
                // stays inside.
                if size > 0 && fields.last().is_some_and(|f| self.layout(f.ty).size == 0) {
                    size += 1;
                }
                size = size.next_multiple_of(align);
                map.resize((size / 8) as usize, false);
                let components = components.filter(|c| c.len() <= MAX_COMPONENTS).map(Rc::from);
                Layout { size, align, words: map.into(), components }
            }
        };
        let layout = Rc::new(layout);
        self.all[t.0 as usize].layout = Some(layout.clone());
        layout
    }

    /// Offset of each field of a struct.
    pub(crate) fn field_offset(&mut self, fields: &[Field], index: usize) -> u64 {
        let mut at = 0;
        for (i, f) in fields.iter().enumerate() {
            let l = self.layout(f.ty);
            at = u64::next_multiple_of(at, l.align);
            if i == index {
                break;
            }
            at += l.size;
        }
        at
    }

    /// The run-time descriptor of a type; there is one for each type, so that addresses compare as
    /// types do.
    pub(crate) fn info(&mut self, t: Ty) -> &'static TypeInfo {
        if let Some(i) = self.all[t.0 as usize].info {
            return i;
        }
        let layout = self.layout(t);
        let direct = matches!(
            self.kind(t),
            Kind::Pointer(_) | Kind::Func(_) | Kind::Chan(..) | Kind::Map(..) | Kind::UnsafePointer
        );
        let info: &'static TypeInfo = Box::leak(Box::new(TypeInfo::new(
            self.name(t).to_string(),
            layout.size as usize,
            layout.words.to_vec(),
            direct,
        )));
        self.all[t.0 as usize].info = Some(info);
        let shape = match self.kind(t).clone() {
            Kind::Bool => Shape::Bool,
            Kind::Int { signed: true, .. } => Shape::Int,
            Kind::Int { name: "uintptr", .. } => Shape::Uint,
            Kind::Int { .. } => Shape::Uint,
            Kind::Float { .. } => Shape::Float,
            Kind::String => Shape::String,
            Kind::Pointer(e) => Shape::Pointer(self.info(e)),
            Kind::Slice(e) => Shape::Slice(self.info(e)),
            Kind::Array(n, e) => Shape::Array(n as usize, self.info(e)),
            Kind::Struct(fields) => {
                let mut out = vec![];
                for (i, f) in fields.iter().enumerate() {
                    let offset = self.field_offset(&fields, i) as usize;
                    out.push(FieldInfo { name: f.name.clone(), offset, ty: self.info(f.ty) });
                }
                Shape::Struct(out)
            }
            Kind::Interface(methods) => {
                Shape::Interface(methods.iter().map(|(n, t)| (n.clone(), t.number())).collect())
            }
            Kind::Chan(..) => Shape::Chan,
            Kind::Map(k, v) => Shape::Map(Box::new(MapType::new(self.info(k), self.info(v)))),
            Kind::Func(_) => Shape::Func,
            _ => Shape::Opaque,
        };
        info.set_shape(shape);
        info
    }
}

fn int(bits: u8, signed: bool, name: &'static str) -> Kind {
    Kind::Int { bits, signed, name }
}

fn basic(b: BasicType) -> Kind {
    match b {
        BasicType::Bool | BasicType::UntypedBool => Kind::Bool,
        BasicType::Int | BasicType::UntypedInt => int(64, true, "int"),
        BasicType::Int8 => int(8, true, "int8"),
        BasicType::Int16 => int(16, true, "int16"),
        BasicType::Int32 | BasicType::Rune | BasicType::UntypedRune => int(32, true, "int32"),
        BasicType::Int64 => int(64, true, "int64"),
        BasicType::Uint => int(64, false, "uint"),
        BasicType::Uint8 | BasicType::Byte => int(8, false, "uint8"),
        BasicType::Uint16 => int(16, false, "uint16"),
        BasicType::Uint32 => int(32, false, "uint32"),
        BasicType::Uint64 => int(64, false, "uint64"),
        BasicType::Uintptr => int(64, false, "uintptr"),
        BasicType::Float32 => Kind::Float { bits: 32 },
        BasicType::Float64 | BasicType::UntypedFloat => Kind::Float { bits: 64 },
        BasicType::Str | BasicType::UntypedString => Kind::String,
        BasicType::UnsafePointer => Kind::UnsafePointer,
        BasicType::UntypedNil => Kind::Nil,
        BasicType::Complex64 | BasicType::Complex128 | BasicType::UntypedComplex => {
            Kind::Unsupported("complex numbers")
        }
        BasicType::Invalid => Kind::Unsupported("an invalid type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_laid_out_as_in_go() {
        let mut types = Types::new();
        let Basic { uint8, int, string, bool, .. } = types.basic;
        let field = |name: &str, ty: Ty| Field { name: name.into(), ty, embedded: false };
        let inner = types
            .intern(Kind::Struct([field("a", uint8), field("s", string), field("b", bool)].into()));
        let layout = types.layout(inner);
        assert_eq!((layout.size, layout.align), (32, 8));
        assert_eq!(layout.words[..], [false, true, false, false]);
        assert_eq!(layout.components.as_ref().map(|c| c.len()), Some(4));
        let large = types.intern(Kind::Array(3, inner));
        let layout = types.layout(large);
        assert_eq!((layout.size, layout.components.is_none()), (96, true));
        let empty = types.intern(Kind::Struct([].into()));
        let padded = types.intern(Kind::Struct([field("n", int), field("e", empty)].into()));
        assert_eq!(
            types.layout(padded).size,
            16,
            "the address of a last field without size lies inside"
        );
    }

    #[test]
    fn identical_types_are_one() {
        let mut types = Types::new();
        let int = types.basic.int;
        let (a, b) = (types.pointer_to(int), types.pointer_to(int));
        assert_eq!(a, b);
        assert_eq!(types.name(a), "*int");
        let signature =
            Kind::Func(Rc::new(Sig { params: vec![a], results: vec![int, int], variadic: false }));
        let f = types.intern(signature);
        assert_eq!(types.name(f), "func(*int) (int, int)");
    }
}
