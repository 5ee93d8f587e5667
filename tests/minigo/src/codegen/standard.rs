//! Calls of the functions of standard packages.

use super::function::{FuncGen, Val};
use crate::error::Compiled;
use crate::runtime::natives::{self, NativeFn};
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::{InstBuilder, Value};
use go_parser::Pos;
use go_parser::ast::{CallExpr, Expr};
use go_types::ObjKey;

/// A function of a standard package.
#[derive(Clone, Copy)]
pub(crate) enum Standard {
    /// Operands: the format, if there is one, and the list of what is printed.
    Print {
        native: NativeFn,
        to_string: bool,
    },
    Collect,
    Gosched,
    NumGoroutine,
    Goexit,
    /// `time.Now`, of this type; the clock's nanoseconds.
    Now(Ty),
    /// `time.Since`, of this type.
    Since(Ty),
}

impl FuncGen<'_, '_> {
    /// The function of a package that `f` names.
    fn package_object(&self, f: &Expr) -> Option<ObjKey> {
        match f {
            Expr::Paren(p) => self.package_object(&p.expr),
            Expr::Selector(s) => self.c.program.info().uses.get(&s.sel).copied(),
            _ => None,
        }
    }

    /// Which function that is, and its arguments.
    pub(crate) fn standard_operands(
        &mut self,
        package: &str,
        name: &str,
        c: &CallExpr,
        pos: Pos,
    ) -> Compiled<(Standard, Vec<Val>)> {
        let basic = self.c.types.basic;
        let any_slice = self.c.types.intern(Kind::Slice(basic.any));
        let print: Option<(NativeFn, bool, bool)> = match (package, name) {
            ("fmt", "Print") => Some((natives::fmt_print, false, false)),
            ("fmt", "Println") => Some((natives::fmt_println, false, false)),
            ("fmt", "Printf") => Some((natives::fmt_printf, true, false)),
            ("fmt", "Sprint") => Some((natives::fmt_sprint, false, true)),
            ("fmt", "Sprintln") => Some((natives::fmt_sprintln, false, true)),
            ("fmt", "Sprintf") => Some((natives::fmt_sprintf, true, true)),
            _ => None,
        };
        if let Some((native, format, to_string)) = print {
            let params = if format { vec![basic.string, any_slice] } else { vec![any_slice] };
            return Ok((Standard::Print { native, to_string }, self.arguments(&params, true, c)?));
        }
        if package == "time" {
            let object = self.package_object(&c.func).filter(|_| matches!(name, "Now" | "Since"));
            let object = object
                .ok_or_else(|| self.error(pos, format!("{package}.{name} is not supported")))?;
            let sig = self.c.function_sig(object, pos)?;
            let operands = self.arguments(&sig.params, false, c)?;
            let result = sig.results[0];
            return Ok((
                if name == "Now" { Standard::Now(result) } else { Standard::Since(result) },
                operands,
            ));
        }
        let call = match (package, name) {
            ("runtime", "GC") => Standard::Collect,
            ("runtime", "Gosched") => Standard::Gosched,
            ("runtime", "NumGoroutine") => Standard::NumGoroutine,
            ("runtime", "Goexit") => Standard::Goexit,
            _ => return Err(self.error(pos, format!("{package}.{name} is not supported"))),
        };
        Ok((call, vec![]))
    }

    /// The call itself.
    pub(crate) fn emit_standard(&mut self, call: &Standard, operands: &[Val]) -> Vec<Val> {
        let basic = self.c.types.basic;
        match call {
            Standard::Print { native, to_string } => {
                let (list, format) = operands.split_last().expect("the variadic argument");
                let mut words: Vec<Value> = vec![list.v[0], list.v[1]];
                words.extend(format.iter().flat_map(|f| f.v.iter().copied()));
                let n = self.b.native(*native, &words);
                // Methods may have been called for the texts: the operands are roots until here.
                self.keep_alive(operands);
                if *to_string {
                    return vec![self.string_result(basic.string)];
                }
                let error = self.zero(basic.any);
                vec![Val { ty: basic.int, v: vec![n] }, error]
            }
            Standard::Collect => {
                self.b.native(natives::collect, &[]);
                vec![]
            }
            Standard::Gosched => {
                self.yield_now();
                vec![]
            }
            Standard::NumGoroutine => {
                let n = self.b.native(natives::num_goroutine, &[]);
                vec![Val { ty: basic.int, v: vec![n] }]
            }
            Standard::Now(ty) => {
                vec![Val { ty: *ty, v: vec![self.b.native(natives::nanoseconds, &[])] }]
            }
            Standard::Since(ty) => {
                let now = self.b.native(natives::nanoseconds, &[]);
                vec![Val { ty: *ty, v: vec![self.b.ins().isub(now, operands[0].v[0])] }]
            }
            Standard::Goexit => {
                self.emit_goexit();
                vec![]
            }
        }
    }
}
