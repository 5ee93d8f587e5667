//! The C side of a program as a shared object: the preamble, a wrapper for each call, the program's
//! C files.
//!
//! A call travels as one block: the arguments, then the results, each with its natural alignment.
//! For a call of C the block lies in the caller's frame, and C may call back and move that frame.
//! So the wrapper reads the arguments before the call, and looks for the block again to write the
//! result. For a call of Go the block lies on C's stack.

use super::compiler::{self, argument, line_directive};
use super::declarations::{Function, c_spelling};
use super::source::c_name;
use super::{Scratch, Unit, include_directory, io_error, preamble};
use crate::error::{CompileError, Compiled};
use crate::front::Program;
use crate::os;
use go_parser::ast::Decl;
use go_types::typ::{BasicType, Type};
use go_types::{ObjKey, TypeKey};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The addresses of what Go calls as `C.f`.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    calls: HashMap<String, usize>,
    calls_with_errno: HashMap<String, usize>,
    addresses: HashMap<String, usize>,
    variables: HashMap<String, usize>,
    /// The functions that C may call, in the order of their numbers.
    pub(crate) exports: Vec<ObjKey>,
}

impl Symbols {
    /// The wrapper of a C function.
    pub(crate) fn call(&self, name: &str, with_errno: bool) -> Option<usize> {
        let map = if with_errno { &self.calls_with_errno } else { &self.calls };
        map.get(name).copied()
    }

    /// The address of a C function.
    pub(crate) fn address(&self, name: &str) -> Option<usize> {
        self.addresses.get(name).copied()
    }

    /// The address of a C variable.
    pub(crate) fn variable(&self, name: &str) -> Option<usize> {
        self.variables.get(name).copied()
    }
}

/// Functions of the runtime that the C side calls.
pub(crate) struct Hooks {
    /// Where the stack of the goroutine that called ends: `char *f(void)`.
    pub(crate) stack_top: usize,
    /// Calls an exported function: `void f(unsigned long number, void *block)`.
    pub(crate) export: usize,
}

struct Export {
    name: String,
    line: usize,
    object: ObjKey,
    params: Vec<String>,
    results: Vec<String>,
}

/// Go's types as C code names them.
const GO_TYPES: &str = "typedef signed char GoInt8;
typedef unsigned char GoUint8;
typedef short GoInt16;
typedef unsigned short GoUint16;
typedef int GoInt32;
typedef unsigned int GoUint32;
typedef long long GoInt64;
typedef unsigned long long GoUint64;
typedef GoInt64 GoInt;
typedef GoUint64 GoUint;
typedef unsigned long GoUintptr;
typedef float GoFloat32;
typedef double GoFloat64;
#ifdef __cplusplus
typedef bool GoBool;
#else
typedef _Bool GoBool;
#endif
";

/// Compiles and loads the C side of a checked program.
///
/// The shared object is kept in the file `keep`, if it is given.
pub(crate) fn load(
    program: &Program,
    unit: &Unit,
    hooks: &Hooks,
    keep: Option<&Path>,
) -> Compiled<Symbols> {
    let exports = exports(program, unit)?;
    let scratch = Scratch::new(&unit.file)?;
    let prototypes: String =
        exports.iter().fold(String::new(), |out, e| out + &prototype(e) + ";\n");
    let start = format!("{GO_TYPES}{}", preamble(&unit.source, &unit.file));
    let start = format!("{start}\ntypedef _GoString_ GoString;\n");
    let structs: String = exports.iter().fold(String::new(), |out, e| out + &return_struct(e));
    let [begin, end] =
        ["extern \"C\" {", "}"].map(|text| format!("#ifdef __cplusplus\n{text}\n#endif\n"));
    let header = format!("#pragma once\n{start}\n{begin}{structs}{prototypes}{end}");
    scratch.write(&unit.file, "_cgo_export.h", &header)?;
    let mut text = format!("{start}\n#line 1 \"wrappers\"\n{structs}{prototypes}");
    text.push_str(
        "char *(*_minigo_stack_top)(void);\n\
         void (*_minigo_export)(unsigned long, void *);\n\
         extern int *__errno_location(void);\n",
    );
    for name in &unit.called {
        call_wrapper(&mut text, "call", name, &unit.functions[name], false);
    }
    for name in &unit.with_errno {
        call_wrapper(&mut text, "errno", name, &unit.functions[name], true);
    }
    for name in &unit.addresses {
        let _ = writeln!(text, "void *_minigo_address_{name}(void) {{ return (void *){name}; }}");
    }
    for name in &unit.variables {
        let _ = writeln!(text, "void *_minigo_variable_{name}(void) {{ return (void *)&{name}; }}");
    }
    for (i, e) in exports.iter().enumerate() {
        text.push_str(&line_directive(e.line, &unit.file));
        export_stub(&mut text, i, e);
    }
    let source = scratch.write(&unit.file, "wrappers.c", &text)?;
    let object = scratch.0.join("library.so");
    let mut arguments: Vec<String> =
        // Its own functions win over those of the system that have the same names.
        ["-shared", "-fPIC", "-g", "-O2", "-w", "-pthread", "-fexceptions", "-Wl,-Bsymbolic"]
            .map(String::from)
            .to_vec();
    arguments.extend(unit.source.compile_flags.iter().cloned());
    arguments.extend(include_directory(&unit.file));
    arguments.push(format!("-I{}", argument(&scratch.0)));
    arguments.extend(["-o".into(), argument(&object), argument(&source)]);
    let files = native_files(unit)?;
    arguments.extend(files.iter().map(|f| argument(f)));
    if files.iter().any(|f| is_native(f, &CXX)) {
        arguments.push("-lstdc++".into());
    }
    arguments.extend(unit.source.link_flags.iter().cloned());
    compiler::must_run(&unit.file, &arguments)?;
    let library = match keep {
        Some(kept) => {
            std::fs::copy(&object, kept).map_err(|e| io_error(&unit.file, kept, &e))?;
            os::load_library(&kept.display().to_string())
        }
        None => {
            let bytes = std::fs::read(&object).map_err(|e| io_error(&unit.file, &object, &e))?;
            os::load_from_memory(&bytes)
        }
    };
    let failed = |message: String| CompileError { place: unit.file.clone(), message };
    let library = library.map_err(failed)?;
    let symbol = |name: &str| {
        os::address_in(library, name).ok_or_else(|| failed(format!("the C code has no {name}")))
    };
    // SAFETY: the two words are the wrappers' own variables, and no C code of this object runs yet.
    unsafe {
        *(symbol("_minigo_stack_top")? as *mut usize) = hooks.stack_top;
        *(symbol("_minigo_export")? as *mut usize) = hooks.export;
    }
    let addresses_of = |kind: &str,
                        names: &std::collections::BTreeSet<String>|
     -> Compiled<HashMap<String, usize>> {
        let address = |name: &String| {
            let f = symbol(&format!("_minigo_{kind}_{name}"))?;
            // SAFETY: a function of that type, made above.
            let f = unsafe { std::mem::transmute::<usize, extern "C" fn() -> usize>(f) };
            Ok((name.clone(), f()))
        };
        names.iter().map(address).collect()
    };
    let all = |kind: &str,
               names: &std::collections::BTreeSet<String>|
     -> Compiled<HashMap<String, usize>> {
        names.iter().map(|n| Ok((n.clone(), symbol(&format!("_minigo_{kind}_{n}"))?))).collect()
    };
    Ok(Symbols {
        calls: all("call", &unit.called)?,
        calls_with_errno: all("errno", &unit.with_errno)?,
        addresses: addresses_of("address", &unit.addresses)?,
        variables: addresses_of("variable", &unit.variables)?,
        exports: exports.iter().map(|e| e.object).collect(),
    })
}

/// Extensions of C++ files.
const CXX: [&str; 3] = ["cc", "cpp", "cxx"];

fn is_native(file: &Path, extensions: &[&str]) -> bool {
    file.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
}

/// The C and C++ files beside the program.
fn native_files(unit: &Unit) -> Compiled<Vec<PathBuf>> {
    let entries = std::fs::read_dir(&unit.directory)
        .map_err(|e| io_error(&unit.file, &unit.directory, &e))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| is_native(p, &["c"]) || is_native(p, &CXX))
        .collect();
    files.sort();
    Ok(files)
}

/// `void _minigo_KIND_f(void *block)`. Its own names are none that a C program may use.
fn call_wrapper(text: &mut String, kind: &str, name: &str, f: &Function, with_errno: bool) {
    let mut block = String::new();
    for (i, t) in f.c_params.iter().enumerate() {
        let _ = write!(block, "{t} __minigo_p{i}; ");
    }
    if let Some(t) = &f.c_result {
        let _ = write!(block, "{t} __minigo_r; ");
    }
    if with_errno {
        block.push_str("int __minigo_e; ");
    }
    if block.is_empty() {
        block.push_str("char __minigo_none; ");
    }
    let args: Vec<String> =
        (0..f.c_params.len()).map(|i| format!("__minigo_a->__minigo_p{i}")).collect();
    let args = args.join(", ");
    let _ = write!(
        text,
        "void _minigo_{kind}_{name}(void *__minigo_block) \
         {{ struct {{ {block}}} *__minigo_a = __minigo_block; \
         char *__minigo_top = _minigo_stack_top(); "
    );
    if with_errno {
        text.push_str("*__errno_location() = 0; ");
    }
    match &f.c_result {
        Some(t) if t == "void *" => {
            let _ = write!(text, "{t} __minigo_r = (void *){name}({args}); ");
        }
        Some(t) => {
            let _ = write!(text, "{t} __minigo_r = {name}({args}); ");
        }
        None => {
            let _ = write!(text, "{name}({args}); ");
        }
    }
    if with_errno {
        text.push_str("int __minigo_e = *__errno_location(); ");
    }
    if f.c_result.is_some() || with_errno {
        text.push_str(
            "__minigo_a = (void *)((char *)__minigo_a + (_minigo_stack_top() - __minigo_top)); ",
        );
    }
    if f.c_result.is_some() {
        text.push_str("__minigo_a->__minigo_r = __minigo_r; ");
    }
    if with_errno {
        text.push_str("__minigo_a->__minigo_e = __minigo_e; ");
    }
    text.push_str("}\n");
}

fn return_type(e: &Export) -> String {
    match &e.results[..] {
        [] => "void".into(),
        [one] => one.clone(),
        _ => format!("struct {}_return", e.name),
    }
}

fn return_struct(e: &Export) -> String {
    if e.results.len() < 2 {
        return String::new();
    }
    let fields = e
        .results
        .iter()
        .enumerate()
        .fold(String::new(), |out, (i, t)| out + &format!("{t} r{i}; "));
    format!("struct {}_return {{ {fields}}};\n", e.name)
}

fn prototype(e: &Export) -> String {
    let params: Vec<String> =
        e.params.iter().enumerate().map(|(i, t)| format!("{t} p{i}")).collect();
    let params = if params.is_empty() { "void".into() } else { params.join(", ") };
    format!("extern {} {}({params})", return_type(e), e.name)
}

/// The C function that calls Go.
fn export_stub(text: &mut String, number: usize, e: &Export) {
    let mut block = String::new();
    for (i, t) in e.params.iter().enumerate() {
        let _ = write!(block, "{t} __minigo_p{i}; ");
    }
    for (i, t) in e.results.iter().enumerate() {
        let _ = write!(block, "{t} __minigo_r{i}; ");
    }
    if block.is_empty() {
        block.push_str("char __minigo_none; ");
    }
    let head = prototype(e);
    let head = head.trim_start_matches("extern ");
    let _ = write!(text, "{head} {{ struct {{ {block}}} __minigo_a; ");
    for i in 0..e.params.len() {
        let _ = write!(text, "__minigo_a.__minigo_p{i} = p{i}; ");
    }
    let _ = write!(text, "_minigo_export({number}, &__minigo_a); ");
    match &e.results[..] {
        [] => {}
        [_] => text.push_str("return __minigo_a.__minigo_r0; "),
        all => {
            let fields: Vec<String> =
                (0..all.len()).map(|i| format!("__minigo_a.__minigo_r{i}")).collect();
            let _ = write!(text, "return ({}){{ {} }}; ", return_type(e), fields.join(", "));
        }
    }
    text.push_str("}\n");
}

fn exports(program: &Program, unit: &Unit) -> Compiled<Vec<Export>> {
    let mut out = vec![];
    for e in &unit.source.exports {
        let failed =
            |message: String| CompileError { place: format!("{}:{}", unit.file, e.line), message };
        let decl = program.info().ast_files.iter().flat_map(|f| &f.decls).find_map(|d| match d {
            Decl::Func(key) => {
                let f = &program.ast.fdecls[*key];
                (f.recv.is_none() && f.body.is_some() && program.ast.idents[f.name].name == e.name)
                    .then_some(f)
            }
            _ => None,
        });
        let object = decl.and_then(|f| program.info().defs.get(&f.name).copied().flatten());
        let Some(object) = object else {
            return Err(failed(format!("export comment refers to a missing function {}", e.name)));
        };
        let tc = &program.tc;
        let signature = tc.lobjs[object].typ().and_then(|t| tc.types[t].try_as_signature());
        let Some(signature) = signature else {
            return Err(failed(format!("{} is not a function", e.name)));
        };
        if signature.variadic() {
            return Err(failed(format!("{} has a variable number of parameters", e.name)));
        }
        let list = |key: TypeKey| -> Compiled<Vec<String>> {
            let Type::Tuple(t) = &tc.types[key] else { return Ok(vec![]) };
            t.vars()
                .iter()
                .map(|v| {
                    let t = tc.lobjs[*v].typ().and_then(|t| c_type(program, t));
                    t.ok_or_else(|| {
                        failed(format!(
                            "{}: C has no type for one of its parameters or results",
                            e.name
                        ))
                    })
                })
                .collect()
        };
        let (params, results) = (list(signature.params())?, list(signature.results())?);
        out.push(Export { name: e.name.clone(), line: e.line, object, params, results });
    }
    Ok(out)
}

/// The C type of a Go type.
fn c_type(program: &Program, key: TypeKey) -> Option<String> {
    let tc = &program.tc;
    Some(match &tc.types[key] {
        Type::Named(n) => {
            let name = tc.lobjs[(*n.obj())?].name();
            match c_name(name) {
                Some((_, name)) => c_spelling(name),
                None => c_type(program, go_types::typ::deep_underlying_type(key, tc))?,
            }
        }
        Type::Pointer(p) => match &tc.types[p.base()] {
            Type::Named(n) if c_name(tc.lobjs[(*n.obj())?].name()).is_some() => {
                format!("{} *", c_type(program, p.base())?)
            }
            _ => "void *".into(),
        },
        Type::Basic(b) => match b.typ() {
            BasicType::Bool => "GoBool",
            BasicType::Int => "GoInt",
            BasicType::Int8 => "GoInt8",
            BasicType::Int16 => "GoInt16",
            BasicType::Int32 | BasicType::Rune => "GoInt32",
            BasicType::Int64 => "GoInt64",
            BasicType::Uint => "GoUint",
            BasicType::Uint8 | BasicType::Byte => "GoUint8",
            BasicType::Uint16 => "GoUint16",
            BasicType::Uint32 => "GoUint32",
            BasicType::Uint64 => "GoUint64",
            BasicType::Uintptr => "GoUintptr",
            BasicType::Float32 => "GoFloat32",
            BasicType::Float64 => "GoFloat64",
            BasicType::Str => "GoString",
            BasicType::UnsafePointer => "void *",
            _ => return None,
        }
        .into(),
        _ => return None,
    })
}
