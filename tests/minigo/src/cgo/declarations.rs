//! Go declarations of the C names that a program uses, from the debugging information that the C
//! compiler writes.

use crate::cgo::sections::Sections;
use crate::cgo::source::{ADDRESS, NAME, UNSAFE_POINTER, WITH_ERRNO};
use gimli::{AttributeValue, DwAt, UnitOffset, constants as dw};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

type Bytes<'d> = gimli::EndianSlice<'d, gimli::LittleEndian>;
type Die<'d> = gimli::DebuggingInformationEntry<Bytes<'d>>;

/// Why a name cannot be declared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeclarationError {
    /// The object file has another format.
    #[error("the C compiler's object file cannot be read: {0}")]
    Object(#[from] object::Error),
    /// The debugging information is malformed.
    #[error("the C compiler's debugging information cannot be read: {0}")]
    Dwarf(#[from] gimli::Error),
    /// A C type without a counterpart in Go.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A name without a description.
    #[error("the C compiler does not describe it")]
    Missing,
}

/// What a C name is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Type,
    Function(Function),
    /// A variable, of this type in Go.
    Variable(String),
}

/// A C function's type.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Go's types of the parameters.
    pub(crate) params: Vec<String>,
    /// The same in C.
    pub(crate) c_params: Vec<String>,
    /// None: void.
    pub(crate) result: Option<String>,
    pub(crate) c_result: Option<String>,
}

/// A type, in both languages.
#[derive(Clone, Debug)]
struct Type {
    go: String,
    /// C's spelling of the type in a call's argument block.
    c: String,
    size: u64,
    /// Go's alignment.
    align: u64,
}

/// The description of C types in an object file of one unit.
pub(crate) struct Descriptions<'d> {
    unit: gimli::Unit<Bytes<'d>>,
    dwarf: gimli::Dwarf<Bytes<'d>>,
    variables: HashMap<String, UnitOffset>,
    types: HashMap<UnitOffset, Type>,
    /// `type NAME DEFINITION`, by name.
    declared: BTreeMap<String, String>,
    unnamed: usize,
}

impl<'d> Descriptions<'d> {
    pub(crate) fn read(sections: &'d Sections) -> Result<Descriptions<'d>, DeclarationError> {
        let dwarf = sections.0.borrow(|data| Bytes::new(data, gimli::LittleEndian));
        let header = dwarf.units().next()?.ok_or(DeclarationError::Missing)?;
        let unit = dwarf.unit(header)?;
        let mut variables = HashMap::new();
        let mut entries = unit.entries();
        while let Some(e) = entries.next_dfs()? {
            if e.tag() == dw::DW_TAG_variable
                && let Some(name) = text(&dwarf, &unit, e, dw::DW_AT_name)?
                && let Some(t) = reference(e, dw::DW_AT_type)
            {
                variables.insert(name, t);
            }
        }
        Ok(Descriptions {
            unit,
            dwarf,
            variables,
            types: HashMap::new(),
            declared: BTreeMap::new(),
            unnamed: 0,
        })
    }

    fn entry(&self, at: UnitOffset) -> Result<Die<'d>, DeclarationError> {
        Ok(self.unit.entry(at)?)
    }

    /// What the variable `variable`, a pointer to it, says about the C name `name`.
    pub(crate) fn kind(
        &mut self,
        variable: &str,
        name: &str,
        is_type: bool,
    ) -> Result<Kind, DeclarationError> {
        let pointer = *self.variables.get(variable).ok_or(DeclarationError::Missing)?;
        let entry = self.entry(pointer)?;
        let Some(to) = reference(&entry, dw::DW_AT_type) else {
            // A pointer to void.
            self.declared.insert(go_name(name), "[0]byte".into());
            return Ok(Kind::Type);
        };
        if is_type {
            let t = self.type_at(to)?;
            self.alias(name, &t.go);
            return Ok(Kind::Type);
        }
        let target = self.entry(to)?;
        match target.tag() {
            dw::DW_TAG_subroutine_type => Ok(Kind::Function(self.function(to)?)),
            _ => Ok(Kind::Variable(self.type_at(to)?.go)),
        }
    }

    fn children(&self, at: UnitOffset) -> Result<Vec<UnitOffset>, DeclarationError> {
        let mut tree = self.unit.entries_tree(Some(at))?;
        let mut children = tree.root()?.children();
        let mut found = vec![];
        while let Some(child) = children.next()? {
            found.push(child.entry().offset());
        }
        Ok(found)
    }

    fn function(&mut self, at: UnitOffset) -> Result<Function, DeclarationError> {
        let (mut params, mut c_params) = (vec![], vec![]);
        let prototyped = self.entry(at)?.attr_value(dw::DW_AT_prototyped).is_some();
        for child in self.children(at)? {
            let entry = self.entry(child)?;
            match entry.tag() {
                dw::DW_TAG_formal_parameter => {
                    let to = reference(&entry, dw::DW_AT_type).ok_or(DeclarationError::Missing)?;
                    let t = self.type_at(to)?;
                    params.push(t.go);
                    c_params.push(t.c);
                }
                // `int f()` says nothing of its parameters: it is called with none.
                dw::DW_TAG_unspecified_parameters if prototyped || !params.is_empty() => {
                    return Err(DeclarationError::Unsupported(
                        "a C function with a variable number of parameters".into(),
                    ));
                }
                _ => {}
            }
        }
        let result = match reference(&self.entry(at)?, dw::DW_AT_type) {
            Some(to) => Some(self.type_at(to)?),
            None => None,
        };
        let (result, c_result) = result.map_or((None, None), |t| (Some(t.go), Some(t.c)));
        Ok(Function { params, c_params, result, c_result })
    }

    fn alias(&mut self, name: &str, go: &str) {
        let own = go_name(name);
        if own == go || self.declared.contains_key(&own) {
            return;
        }
        let definition =
            if is_c(go) || go == UNSAFE_POINTER { format!("= {go}") } else { go.to_owned() };
        self.declared.insert(own, definition);
    }

    /// Declares `name` as a type of its own.
    fn named(&mut self, name: &str, definition: &str) -> String {
        let own = go_name(name);
        self.declared.entry(own.clone()).or_insert_with(|| definition.into());
        own
    }

    fn type_at(&mut self, at: UnitOffset) -> Result<Type, DeclarationError> {
        if let Some(t) = self.types.get(&at) {
            return Ok(t.clone());
        }
        let t = self.make_type(at, None)?;
        self.types.insert(at, t.clone());
        Ok(t)
    }

    fn make_type(&mut self, at: UnitOffset, hint: Option<&str>) -> Result<Type, DeclarationError> {
        let entry = self.entry(at)?;
        let name = text(&self.dwarf, &self.unit, &entry, dw::DW_AT_name)?;
        let size = number(&entry, dw::DW_AT_byte_size).unwrap_or(0);
        let to = reference(&entry, dw::DW_AT_type);
        let unsupported =
            |what: &str| Err(DeclarationError::Unsupported(format!("the C type {what}")));
        match entry.tag() {
            dw::DW_TAG_base_type => {
                let c = name.ok_or(DeclarationError::Missing)?;
                let encoding = entry.attr_value(dw::DW_AT_encoding);
                let Some(AttributeValue::Encoding(encoding)) = encoding else {
                    return unsupported(&c);
                };
                let Some((own, go)) = base_type(encoding, size, &c) else { return unsupported(&c) };
                let go = self.named(own, go);
                Ok(Type { go, c, size, align: size })
            }
            dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type => match to {
                Some(to) => self.type_at(to),
                None => unsupported("void"),
            },
            dw::DW_TAG_typedef => {
                let name = name.ok_or(DeclarationError::Missing)?;
                if name == GO_STRING {
                    return Ok(Type { go: "string".into(), c: name, size: 16, align: 8 });
                }
                let Some(to) = to else { return unsupported("void") };
                let target = self.entry(to)?;
                let unnamed = text(&self.dwarf, &self.unit, &target, dw::DW_AT_name)?.is_none();
                let t = match self.types.get(&to) {
                    Some(t) => t.clone(),
                    None if unnamed && target.tag() == dw::DW_TAG_structure_type => {
                        // A structure that only the typedef names.
                        self.structure(to, name.clone(), name.clone())?
                    }
                    None => self.type_at(to)?,
                };
                self.alias(&name, &t.go);
                let c = if t.c == "void *" { t.c } else { name.clone() };
                Ok(Type { go: go_name(&name), c, ..t })
            }
            dw::DW_TAG_pointer_type => {
                let go = match to {
                    None => UNSAFE_POINTER.into(),
                    Some(to) => self.pointer_to(to)?,
                };
                Ok(Type { go, c: "void *".into(), size: 8, align: 8 })
            }
            dw::DW_TAG_structure_type => {
                let (own, c) = match (name, hint) {
                    (Some(name), _) => (format!("struct_{name}"), format!("struct {name}")),
                    (None, Some(hint)) => (hint.to_owned(), hint.to_owned()),
                    (None, None) => {
                        self.unnamed += 1;
                        (format!("struct_unnamed{}", self.unnamed), String::new())
                    }
                };
                self.structure(at, own, c)
            }
            dw::DW_TAG_union_type => {
                let c = name.as_ref().map_or(String::new(), |n| format!("union {n}"));
                let go = format!("[{size}]byte");
                let go = match name {
                    Some(name) => self.named(&format!("union_{name}"), &go),
                    None => go,
                };
                Ok(Type { go, c, size, align: 1 })
            }
            dw::DW_TAG_enumeration_type => {
                let mut signed = false;
                for child in self.children(at)? {
                    if let Some(AttributeValue::Sdata(v)) =
                        self.entry(child)?.attr_value(dw::DW_AT_const_value)
                    {
                        signed |= v < 0;
                    }
                }
                let go = format!("{}int{}", if signed { "" } else { "u" }, 8 * size);
                let c = format!("__{}INT{}_TYPE__", if signed { "" } else { "U" }, 8 * size);
                let go = match name {
                    Some(name) => self.named(&format!("enum_{name}"), &go),
                    None => go,
                };
                Ok(Type { go, c, size, align: size })
            }
            dw::DW_TAG_array_type => {
                let to = to.ok_or(DeclarationError::Missing)?;
                let element = self.type_at(to)?;
                let mut counts = vec![];
                for child in self.children(at)? {
                    let range = self.entry(child)?;
                    let bound = number(&range, dw::DW_AT_upper_bound).map(|n| n + 1);
                    counts.push(number(&range, dw::DW_AT_count).or(bound).unwrap_or(0));
                }
                let go = counts.iter().rev().fold(element.go, |t, n| format!("[{n}]{t}"));
                Ok(Type {
                    go,
                    c: String::new(),
                    size: counts.iter().fold(element.size, |s, n| s * n),
                    align: element.align,
                })
            }
            tag => unsupported(&name.unwrap_or_else(|| tag.to_string())),
        }
    }

    fn pointer_to(&mut self, to: UnitOffset) -> Result<String, DeclarationError> {
        let mut at = to;
        loop {
            let entry = self.entry(at)?;
            match entry.tag() {
                dw::DW_TAG_subroutine_type => return Ok("*[0]byte".into()),
                dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_restrict_type => {
                    match reference(&entry, dw::DW_AT_type) {
                        Some(to) => at = to,
                        None => return Ok(UNSAFE_POINTER.into()),
                    }
                }
                dw::DW_TAG_typedef if reference(&entry, dw::DW_AT_type).is_none() => {
                    return Ok(UNSAFE_POINTER.into());
                }
                // A C type without a counterpart in Go can only be pointed to.
                _ => {
                    return Ok(match self.type_at(at) {
                        Ok(t) => format!("*{}", t.go),
                        Err(DeclarationError::Unsupported(_)) => UNSAFE_POINTER.into(),
                        Err(e) => return Err(e),
                    });
                }
            }
        }
    }

    fn structure(
        &mut self,
        at: UnitOffset,
        name: String,
        c: String,
    ) -> Result<Type, DeclarationError> {
        let own = go_name(&name);
        let entry = self.entry(at)?;
        let size = number(&entry, dw::DW_AT_byte_size).unwrap_or(0);
        let mut t = Type { go: own.clone(), c, size, align: 1 };
        // Inserted before its fields are read: they may point to it.
        self.types.insert(at, t.clone());
        if self.declared.contains_key(&own) {
            return Ok(t);
        }
        self.declared.insert(own.clone(), "struct {}".into());
        // Each with its size.
        let mut fields: Vec<(String, u64)> = vec![];
        let padding = |bytes: u64| (format!("_ [{bytes}]byte; "), bytes);
        let (mut end, mut unnamed) = (0, 0);
        for child in self.children(at)? {
            let member = self.entry(child)?;
            let bits = [dw::DW_AT_bit_size, dw::DW_AT_data_bit_offset, dw::DW_AT_bit_offset];
            if member.tag() != dw::DW_TAG_member
                || bits.iter().any(|b| member.attr_value(*b).is_some())
            {
                continue;
            }
            let to = reference(&member, dw::DW_AT_type).ok_or(DeclarationError::Missing)?;
            let offset = number(&member, dw::DW_AT_data_member_location).unwrap_or(0);
            let inner = match self.type_at(to) {
                Ok(t) => t,
                // The field has no name in Go; its bytes stay.
                Err(DeclarationError::Unsupported(_)) => continue,
                Err(e) => return Err(e),
            };
            // Go has no packed structs: what it would put elsewhere has no name either.
            if !offset.is_multiple_of(inner.align)
                || !size.is_multiple_of(inner.align)
                || offset < end
            {
                continue;
            }
            let field = match text(&self.dwarf, &self.unit, &member, dw::DW_AT_name)? {
                Some(name) if GO_KEYWORDS.contains(&&name[..]) => format!("_{name}"),
                Some(name) => name,
                None => {
                    unnamed += 1;
                    format!("anon{}", unnamed - 1)
                }
            };
            if offset > end {
                fields.push(padding(offset - end));
            }
            fields.push((format!("{field} {}; ", inner.go), inner.size));
            t.align = t.align.max(inner.align);
            end = offset + inner.size;
        }
        if size > end {
            fields.push(padding(size - end));
        }
        // Go would put room behind a last field without size.
        while size > 0 && fields.last().is_some_and(|f| f.1 == 0) {
            fields.pop();
        }
        let fields: String = fields.into_iter().map(|f| f.0).collect();
        self.declared.insert(own, format!("struct {{ {fields}}}"));
        self.types.insert(at, t.clone());
        Ok(t)
    }

    /// The declarations of all types that were met, a line each.
    pub(crate) fn types(&self) -> String {
        self.declared.iter().fold(String::new(), |mut out, (name, definition)| {
            let _ = writeln!(out, "type {name} {definition}");
            out
        })
    }
}

/// Go's keywords that are names in C.
const GO_KEYWORDS: [&str; 13] = [
    "chan",
    "defer",
    "fallthrough",
    "func",
    "go",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "select",
    "type",
    "var",
];

/// The C type that is Go's string.
pub(crate) const GO_STRING: &str = "_GoString_";

/// The Go identifier that stands for `C.name`.
pub(crate) fn go_name(name: &str) -> String {
    format!("C{NAME}{name}")
}

fn is_c(go: &str) -> bool {
    go.starts_with(&format!("C{NAME}"))
}

/// The names of `C.name` and Go's type for a type of C itself.
fn base_type(encoding: gimli::DwAte, size: u64, c: &str) -> Option<(&'static str, &'static str)> {
    Some(match (encoding, size) {
        (dw::DW_ATE_boolean, 1) => ("_Bool", "bool"),
        (dw::DW_ATE_signed_char, 1) if c == "char" => ("char", "int8"),
        // Some architectures have no sign in it.
        (dw::DW_ATE_unsigned_char, 1) if c == "char" => ("char", "uint8"),
        (dw::DW_ATE_signed_char, 1) => ("schar", "int8"),
        (dw::DW_ATE_unsigned_char, 1) => ("uchar", "uint8"),
        (dw::DW_ATE_signed, 2) => ("short", "int16"),
        (dw::DW_ATE_unsigned, 2) => ("ushort", "uint16"),
        (dw::DW_ATE_signed, 4) => ("int", "int32"),
        (dw::DW_ATE_unsigned, 4) => ("uint", "uint32"),
        (dw::DW_ATE_signed, 8) if c.contains("long long") => ("longlong", "int64"),
        (dw::DW_ATE_signed, 8) => ("long", "int64"),
        (dw::DW_ATE_unsigned, 8) if c.contains("long long") => ("ulonglong", "uint64"),
        (dw::DW_ATE_unsigned, 8) => ("ulong", "uint64"),
        (dw::DW_ATE_float, 4) => ("float", "float32"),
        (dw::DW_ATE_float, 8) => ("double", "float64"),
        _ => return None,
    })
}

/// C's spelling of the type that Go calls `C.name`.
pub(crate) fn c_spelling(name: &str) -> String {
    for (go, c) in [
        ("schar", "signed char"),
        ("uchar", "unsigned char"),
        ("ushort", "unsigned short"),
        ("uint", "unsigned int"),
        ("ulong", "unsigned long"),
        ("longlong", "long long"),
        ("ulonglong", "unsigned long long"),
    ] {
        if name == go {
            return c.into();
        }
    }
    for kind in ["struct", "union", "enum"] {
        if let Some(tag) = name.strip_prefix(kind).and_then(|n| n.strip_prefix('_')) {
            return format!("{kind} {tag}");
        }
    }
    name.into()
}

/// The declarations of a function: for calls, for calls with errno, and its address.
pub(crate) fn function_declarations(name: &str, f: &Function) -> String {
    let params: Vec<String> =
        f.params.iter().enumerate().map(|(i, t)| format!("p{i} {t}")).collect();
    let params = params.join(", ");
    let result = f.result.as_deref().unwrap_or("");
    let first = f.result.as_deref().unwrap_or("[0]byte");
    format!(
        "func C{NAME}{name}({params}) {result}\n\
         func C{WITH_ERRNO}{name}({params}) ({first}, error)\n\
         var C{ADDRESS}{name} {UNSAFE_POINTER}\n"
    )
}

fn text(
    dwarf: &gimli::Dwarf<Bytes<'_>>,
    unit: &gimli::Unit<Bytes<'_>>,
    e: &Die<'_>,
    at: DwAt,
) -> Result<Option<String>, DeclarationError> {
    match e.attr_value(at) {
        Some(value) => Ok(Some(dwarf.attr_string(unit, value)?.to_string_lossy().into_owned())),
        None => Ok(None),
    }
}

fn reference(e: &Die<'_>, at: DwAt) -> Option<UnitOffset> {
    match e.attr_value(at)? {
        AttributeValue::UnitRef(to) => Some(to),
        _ => None,
    }
}

fn number(e: &Die<'_>, at: DwAt) -> Option<u64> {
    e.attr_value(at)?.udata_value()
}
