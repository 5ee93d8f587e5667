//! Types as the back end sees them: interned by identity, with Go's memory layout and the words
//! that hold references.

mod checked;
mod layout;

use crate::runtime::typeinfo::TypeInfo;
use go_types::{ObjKey, TypeKey};
/// What a component is.
pub(crate) use stackmark_cranelift::Kind as Part;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// An interned type: two are equal exactly if Go calls the types identical.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Ty(u32);

impl Ty {
    /// The number by which the runtime knows the type.
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

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
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
    pub(crate) part: Part,
    pub(crate) offset: u32,
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
    /// Types of the front end that are being looked at. A cycle leads through a named type, which
    /// is known at once, or has no end.
    in_progress: HashSet<TypeKey>,
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
            in_progress: HashSet::new(),
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
}

fn int(bits: u8, signed: bool, name: &'static str) -> Kind {
    Kind::Int { bits, signed, name }
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
