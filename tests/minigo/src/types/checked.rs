//! The types of the front end.

use super::{Direction, Field, Kind, Sig, Ty, Types, int};
use crate::cgo::source::c_name;
use go_types::typ::{BasicType, Type};
use go_types::{ObjKey, TCObjects, TypeKey};
use std::rc::Rc;

impl Types {
    /// The type that the front end calls `key`.
    pub(crate) fn of(&mut self, key: TypeKey, tc: &TCObjects) -> Ty {
        if let Some(t) = self.by_key.get(&key) {
            return *t;
        }
        if !self.in_progress.insert(key) {
            return self.intern(Kind::Unsupported("types without a name that refer to themselves"));
        }
        let t = self.convert(key, tc);
        self.in_progress.remove(&key);
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
