//! From forms to managed code.

use crate::natives;
use crate::syntax::{Form, What, Wrong, read};
use crate::types::{Cell, Declared, Names, typed};
use jit::stackmark_cranelift::cranelift_frontend::{FunctionBuilderContext, Variable};
use jit::stackmark_cranelift::types::I64;
use jit::stackmark_cranelift::{
    Apart, Function, INT, InstBuilder, IntCC, Kind, Module, Options, REF, Signature, Start, Value,
};
use stackmark_mmtk::stack::asm::layout::NativeFn;
use stackmark_mmtk::stack::unwind::Code;

type Builder<'f> = Function<'f, Apart>;
type Typed = (Value, Kind);

/// Compiles and registers a program. Returns the address of what its main goroutine begins with.
///
/// # Errors
/// Something in the program is wrong.
pub(crate) fn compile(text: &str, code: &Code) -> Result<usize, Wrong> {
    let forms = read(text)?;
    let options = Options { name: "program".into(), ..Options::default() };
    let mut module = Module::new(options, None).expect("this machine");
    let mut names = Names::default();
    for form in &forms {
        declare(form, &mut module, &mut names)?;
    }
    let main = names.functions.get("main").filter(|main| main.params.is_empty());
    let main = main.ok_or(Wrong { line: 0, what: "there is no (fn main () ...)".into() })?.id;
    for form in &forms {
        let [what, name, _, _, body @ ..] = form.list()? else { continue };
        if what.name()? == "fn" {
            define(&names.functions[name.name()?], body, form, &mut module, &names)?;
        }
    }
    let begin = module.declare("begin", &[INT, INT], &[INT]).expect("one result");
    build(&mut module, begin, |f, module| {
        f.enter(Start::Goroutine);
        let zero = f.int(0);
        f.leaf(natives::keep_one, zero, zero);
        let result = module.call(f, main, &[]).expect("no argument")[0];
        f.leaf(natives::finish, result, zero);
        f.return_(&[zero]).expect("one result");
        Ok(())
    })?;
    let program = module.finish(code).expect("correct maps");
    let begin = program.address(begin);
    // The code stays.
    std::mem::forget(program);
    Ok(begin)
}

fn build(
    module: &mut Module,
    id: jit::stackmark_cranelift::FuncId,
    body: impl FnOnce(&mut Builder<'_>, &mut Module) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let (mut func, mut context) = (module.empty(id), FunctionBuilderContext::new());
    let mut f = module.builder(id, &mut func, &mut context);
    body(&mut f, module)?;
    f.finish().expect("correct code");
    module.define_function(id, func, None).expect("correct code");
    Ok(())
}

fn declare(form: &Form, module: &mut Module, names: &mut Names) -> Result<(), Wrong> {
    match form.list()? {
        [what, name, fields @ ..] if what.name()? == "cell" => {
            names.cells.insert(name.name()?.into(), Cell::of(fields)?);
        }
        [what, name, params, result, _, ..] if what.name()? == "fn" => {
            let params = params.list()?.iter().map(typed).collect::<Result<Vec<_>, _>>()?;
            let result = match result.name()? {
                "int" => INT,
                "ref" => REF,
                other => return Err(result.wrong(format!("{other} is no kind"))),
            };
            let name = name.name()?;
            let kinds: Vec<Kind> = params.iter().map(|(_, kind)| *kind).collect();
            let id = module.declare(name, &kinds, &[result]).expect("words");
            let entry = (kinds == [REF]).then(|| {
                let entry = format!("go {name}");
                module.declare(&entry, &[INT, REF], &[INT]).expect("words")
            });
            names.functions.insert(name.into(), Declared { id, params, result, entry });
        }
        _ => return Err(form.wrong("neither a cell nor a function")),
    }
    Ok(())
}

fn define(
    function: &Declared,
    body: &[Form],
    at: &Form,
    module: &mut Module,
    names: &Names,
) -> Result<(), Wrong> {
    build(module, function.id, |f, module| {
        f.enter(Start::Managed);
        let mut variables = Vec::new();
        for (index, (name, kind)) in function.params.iter().enumerate() {
            let variable = f.variable(*kind);
            let param = f.param(index);
            f.def_var(variable, param);
            variables.push((name.clone(), variable, *kind));
        }
        let mut compiler = Compiler { f, module, names, variables };
        let (value, kind) = compiler.all(body, at)?;
        if kind != function.result {
            return Err(at.wrong("the function returns another kind"));
        }
        f.return_(&[value]).expect("one result");
        Ok(())
    })?;
    let Some(entry) = function.entry else { return Ok(()) };
    build(module, entry, |f, module| {
        f.enter(Start::Goroutine);
        let argument = f.param(1);
        module.call(f, function.id, &[argument]).expect("one argument");
        let zero = f.int(0);
        f.return_(&[zero]).expect("one result");
        Ok(())
    })
}

/// The body of a function.
struct Compiler<'c, 'f> {
    f: &'c mut Builder<'f>,
    module: &'c mut Module,
    names: &'c Names,
    /// The innermost last.
    variables: Vec<(String, Variable, Kind)>,
}

impl Compiler<'_, '_> {
    /// The value of the last of several expressions.
    fn all(&mut self, forms: &[Form], at: &Form) -> Result<Typed, Wrong> {
        let [first, rest @ ..] = forms else { return Err(at.wrong("an expression is missing")) };
        rest.iter().try_fold(self.value(first)?, |_, form| self.value(form))
    }

    fn of(&mut self, form: &Form, wanted: Kind) -> Result<Value, Wrong> {
        let (value, kind) = self.value(form)?;
        let name = if wanted == REF { "a reference" } else { "a number" };
        if kind == wanted { Ok(value) } else { Err(form.wrong(format!("{name} is missing"))) }
    }

    fn number(&mut self, form: &Form) -> Result<Value, Wrong> {
        self.of(form, INT)
    }

    fn reference(&mut self, form: &Form) -> Result<Value, Wrong> {
        self.of(form, REF)
    }

    /// A reference that is not nil.
    fn object(&mut self, form: &Form) -> Result<Value, Wrong> {
        let object = self.reference(form)?;
        let nil = self.f.ins().icmp_imm_s(IntCC::Equal, object, 0);
        self.fail_if(nil);
        Ok(object)
    }

    fn fail_if(&mut self, condition: Value) {
        self.when(condition, |this| {
            let zero = this.f.int(0);
            this.f.leaf(natives::out_of_range, zero, zero);
        });
    }

    fn when(&mut self, condition: Value, then: impl FnOnce(&mut Self)) {
        let (yes, on) = (self.f.create_block(), self.f.create_block());
        self.f.ins().brif(condition, yes, &[], on, &[]);
        self.f.switch_to_block(yes);
        then(self);
        self.f.ins().jump(on, &[]);
        self.f.switch_to_block(on);
    }

    fn leaf(&mut self, native: NativeFn, a: Value, b: Value, kind: Kind) -> Typed {
        let result = self.f.leaf(native, a, b);
        (if kind == REF { self.f.reference(result) } else { result }, kind)
    }

    fn store(&mut self, object: Value, offset: Value, value: Value) {
        self.f.native(natives::store, &[object, offset, value]);
    }

    fn variable(&self, form: &Form, name: &str) -> Result<(Variable, Kind), Wrong> {
        let found = self.variables.iter().rev().find(|(known, ..)| known == name);
        let (_, variable, kind) = found.ok_or_else(|| form.wrong(format!("no name {name}")))?;
        Ok((*variable, *kind))
    }

    fn value(&mut self, form: &Form) -> Result<Typed, Wrong> {
        match &form.what {
            What::Number(number) => Ok((self.f.int(*number), INT)),
            What::Name(name) if name == "nil" => {
                let nil = self.f.int(0);
                Ok((self.f.reference(nil), REF))
            }
            What::Name(name) => {
                let (variable, kind) = self.variable(form, name)?;
                Ok((self.f.use_var(variable), kind))
            }
            What::Text(text) => {
                let bytes: &'static [u8] = text.clone().into_bytes().leak();
                let [at, len] = [bytes.as_ptr() as i64, bytes.len() as i64].map(|n| self.f.int(n));
                Ok(self.leaf(natives::literal, at, len, REF))
            }
            What::List(forms) => {
                let [what, operands @ ..] = &forms[..] else { return Err(form.wrong("nothing")) };
                self.form(form, what.name()?, operands)
            }
        }
    }

    fn form(&mut self, form: &Form, what: &str, operands: &[Form]) -> Result<Typed, Wrong> {
        match (what, operands) {
            ("do", body) => self.all(body, form),
            ("let", [name, value, body @ ..]) => {
                let (value, kind) = self.value(value)?;
                let variable = self.f.variable(kind);
                self.f.def_var(variable, value);
                self.variables.push((name.name()?.into(), variable, kind));
                let result = self.all(body, form);
                self.variables.pop();
                result
            }
            ("set", [name, value]) => {
                let (variable, kind) = self.variable(name, name.name()?)?;
                let value = self.of(value, kind)?;
                self.f.def_var(variable, value);
                Ok((value, kind))
            }
            ("if", [condition, yes, no]) => self.choice(condition, yes, no),
            ("while", [condition, body @ ..]) => self.repeat(form, condition, body),
            ("+" | "-" | "*" | "/" | "%" | "=" | "<" | "and" | "or", [a, b]) => {
                let (a, b) = (self.number(a)?, self.number(b)?);
                Ok((self.arithmetic(what, a, b), INT))
            }
            ("same", [a, b]) => {
                let (a, b) = (self.reference(a)?, self.reference(b)?);
                let same = self.f.ins().icmp(IntCC::Equal, a, b);
                Ok((self.f.ins().uextend(I64, same), INT))
            }
            ("null", [reference]) => {
                let reference = self.reference(reference)?;
                let null = self.f.ins().icmp_imm_s(IntCC::Equal, reference, 0);
                Ok((self.f.ins().uextend(I64, null), INT))
            }
            ("new" | "get" | "put", [name, ..]) => {
                let cell = self.names.cells.get(name.name()?);
                let cell = cell.ok_or_else(|| name.wrong("no such cell"))?;
                self.cell(form, what, cell, &operands[1..])
            }
            ("array" | "ints", [count]) => {
                let count = self.number(count)?;
                let of_references = self.f.int(i64::from(what == "array"));
                Ok(self.leaf(natives::array, count, of_references, REF))
            }
            ("at" | "int-at", [array, index]) => {
                let (array, index) = (self.object(array)?, self.number(index)?);
                let offset = self.element(array, index);
                let at = self.f.ins().iadd(array, offset);
                Ok(match what {
                    "at" => (self.f.load_reference(at, 0), REF),
                    _ => (self.f.load_plain(I64, at, 0), INT),
                })
            }
            ("put-at", [array, index, value]) => {
                let (array, index) = (self.object(array)?, self.number(index)?);
                let value = self.reference(value)?;
                let offset = self.element(array, index);
                self.store(array, offset, value);
                Ok((value, REF))
            }
            ("put-int-at", [array, index, value]) => {
                let (array, index) = (self.object(array)?, self.number(index)?);
                let value = self.number(value)?;
                let offset = self.element(array, index);
                let at = self.f.ins().iadd(array, offset);
                self.f.store_plain(value, at, 0);
                Ok((value, INT))
            }
            ("size", [array]) => {
                let array = self.object(array)?;
                Ok((self.elements(array), INT))
            }
            ("closure", [function, captured @ ..]) => self.closure(form, function, captured),
            ("captured", [closure, index]) => {
                let What::Number(index) = index.what else { return Err(form.wrong("which one?")) };
                let closure = self.object(closure)?;
                Ok((self.f.load_reference(closure, 16 + 8 * index as i32), REF))
            }
            ("call", [closure, argument]) => self.call_closure(closure, argument),
            ("join", [a, b]) => {
                let (a, b) = (self.reference(a)?, self.reference(b)?);
                Ok(self.leaf(natives::join, a, b, REF))
            }
            ("byte", [text, index]) => {
                let (text, index) = (self.reference(text)?, self.number(index)?);
                Ok(self.leaf(natives::byte, text, index, INT))
            }
            ("bytes", [text]) => self.native(natives::bytes, text, REF, INT),
            ("weak", [object]) => self.native(natives::weak, object, REF, REF),
            ("strong", [weak]) => self.native(natives::strong, weak, REF, REF),
            ("print", [number]) => self.native(natives::print, number, INT, INT),
            ("channel", []) => {
                let zero = self.f.int(0);
                Ok(self.leaf(natives::channel, zero, zero, INT))
            }
            ("send", [channel, object]) => {
                let (channel, object) = (self.number(channel)?, self.reference(object)?);
                Ok(self.leaf(natives::send, channel, object, INT))
            }
            ("receive", [channel]) => self.receive(channel),
            ("go", [function, argument]) => self.go(function, argument),
            ("check", [condition]) => {
                let condition = self.number(condition)?;
                let fails = self.f.ins().icmp_imm_s(IntCC::Equal, condition, 0);
                self.when(fails, |this| {
                    let [line, zero] = [form.line as i64, 0].map(|n| this.f.int(n));
                    this.f.leaf(natives::check_failed, line, zero);
                });
                Ok((condition, INT))
            }
            (name, arguments) => self.call(form, name, arguments),
        }
    }

    fn native(
        &mut self,
        native: NativeFn,
        operand: &Form,
        kind: Kind,
        result: Kind,
    ) -> Result<Typed, Wrong> {
        let operand = self.of(operand, kind)?;
        let zero = self.f.int(0);
        Ok(self.leaf(native, operand, zero, result))
    }

    fn arithmetic(&mut self, what: &str, a: Value, b: Value) -> Value {
        let f = &mut self.f;
        let compared = match what {
            "+" => return f.ins().iadd(a, b),
            "-" => return f.ins().isub(a, b),
            "*" => return f.ins().imul(a, b),
            "and" => return f.ins().band(a, b),
            "or" => return f.ins().bor(a, b),
            "=" => f.ins().icmp(IntCC::Equal, a, b),
            "<" => f.ins().icmp(IntCC::SignedLessThan, a, b),
            _ => {
                let zero = f.ins().icmp_imm_s(IntCC::Equal, b, 0);
                self.fail_if(zero);
                let f = &mut self.f;
                return if what == "/" { f.ins().sdiv(a, b) } else { f.ins().srem(a, b) };
            }
        };
        f.ins().uextend(I64, compared)
    }

    fn choice(&mut self, condition: &Form, yes: &Form, no: &Form) -> Result<Typed, Wrong> {
        let condition = self.number(condition)?;
        let [then, or, on] = [(); 3].map(|()| self.f.create_block());
        self.f.ins().brif(condition, then, &[], or, &[]);
        self.f.switch_to_block(then);
        let (value, kind) = self.value(yes)?;
        let result = self.f.variable(kind);
        self.f.def_var(result, value);
        self.f.ins().jump(on, &[]);
        self.f.switch_to_block(or);
        let value = self.of(no, kind)?;
        self.f.def_var(result, value);
        self.f.ins().jump(on, &[]);
        self.f.switch_to_block(on);
        Ok((self.f.use_var(result), kind))
    }

    fn repeat(&mut self, form: &Form, condition: &Form, body: &[Form]) -> Result<Typed, Wrong> {
        let [head, inside, done] = [(); 3].map(|()| self.f.create_block());
        self.f.ins().jump(head, &[]);
        self.f.switch_to_block(head);
        self.f.poll();
        let condition = self.number(condition)?;
        self.f.ins().brif(condition, inside, &[], done, &[]);
        self.f.switch_to_block(inside);
        self.all(body, form)?;
        self.f.ins().jump(head, &[]);
        self.f.switch_to_block(done);
        Ok((self.f.int(0), INT))
    }

    fn cell(
        &mut self,
        form: &Form,
        what: &str,
        cell: &Cell,
        operands: &[Form],
    ) -> Result<Typed, Wrong> {
        if what == "new" {
            if operands.len() != cell.fields.len() {
                return Err(form.wrong(format!("the cell has {} fields", cell.fields.len())));
            }
            let values = operands.iter().zip(&cell.fields);
            let values = values.map(|(form, (_, kind, _))| self.of(form, *kind));
            let values = values.collect::<Result<Vec<_>, _>>()?;
            let made = self.make(cell.bytes(), cell.references);
            for (value, (_, kind, offset)) in values.into_iter().zip(&cell.fields) {
                // The cell is young: its first stores need no barrier.
                self.f.store_unreported(*kind, value, made, *offset);
            }
            return Ok((made, REF));
        }
        let [field, object, value @ ..] = operands else {
            return Err(form.wrong("a field and an object are missing"));
        };
        let name = field.name()?;
        let found = cell.fields.iter().find(|(known, ..)| known == name);
        let (_, kind, offset) = found.ok_or_else(|| field.wrong("no such field"))?;
        let object = self.object(object)?;
        match (what, value) {
            ("get", []) => Ok((self.f.load(*kind, object, *offset), *kind)),
            ("put", [value]) => {
                let value = self.of(value, *kind)?;
                if *kind == REF {
                    let offset = self.f.int(i64::from(*offset));
                    self.store(object, offset, value);
                } else {
                    self.f.store_plain(value, object, *offset);
                }
                Ok((value, *kind))
            }
            _ => Err(form.wrong("too many or too few operands")),
        }
    }

    fn make(&mut self, bytes: usize, references: usize) -> Value {
        let [bytes, references] = [bytes, references].map(|n| self.f.int(n as i64));
        self.leaf(natives::allocate, bytes, references, REF).0
    }

    /// How many elements an array has.
    fn elements(&mut self, array: Value) -> Value {
        let header = self.f.load_plain(I64, array, 0);
        let bytes = self.f.ins().band_imm_s(header, 0xffff_ffff);
        let words = self.f.ins().ushr_imm_u(bytes, 3);
        self.f.ins().iadd_imm_s(words, -1)
    }

    /// The offset of an element that the array has.
    fn element(&mut self, array: Value, index: Value) -> Value {
        let count = self.elements(array);
        let outside = self.f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, count);
        self.fail_if(outside);
        let offset = self.f.ins().ishl_imm_u(index, 3);
        self.f.ins().iadd_imm_s(offset, 8)
    }

    fn function(&self, form: &Form) -> Result<Declared, Wrong> {
        let function = self.names.functions.get(form.name()?);
        function.cloned().ok_or_else(|| form.wrong("no such function"))
    }

    /// A closure is the address of its code, behind its references: what it has captured.
    fn closure(&mut self, form: &Form, name: &Form, captured: &[Form]) -> Result<Typed, Wrong> {
        let function = self.function(name)?;
        if function.params.iter().any(|(_, kind)| *kind != REF)
            || function.params.len() != 2
            || function.result != REF
        {
            return Err(form.wrong("a closure's code takes itself and a reference"));
        }
        let captured = captured.iter().map(|form| self.reference(form));
        let captured = captured.collect::<Result<Vec<_>, _>>()?;
        // A first reference that is nil, so that the code has a place which every closure knows:
        // the last word, of which the header tells the offset.
        let count = captured.len() + 1;
        let made = self.make(8 + 8 * count + 8, count);
        for (index, value) in captured.into_iter().enumerate() {
            self.f.store_unreported(REF, value, made, 16 + 8 * index as i32);
        }
        let code = self.module.reference(function.id, self.f.func);
        let code = self.f.ins().func_addr(I64, code);
        self.f.store_plain(code, made, 8 + 8 * count as i32);
        Ok((made, REF))
    }

    fn call_closure(&mut self, closure: &Form, argument: &Form) -> Result<Typed, Wrong> {
        let (closure, argument) = (self.object(closure)?, self.reference(argument)?);
        let words = self.elements(closure);
        let offset = self.f.ins().ishl_imm_u(words, 3);
        let at = self.f.ins().iadd(closure, offset);
        let code = self.f.load_plain(I64, at, 0);
        let signature = Signature::new(&[REF, REF], &[REF]).expect("words");
        let results = self.f.call_indirect(&signature, code, &[closure, argument]);
        Ok((results.expect("two arguments")[0], REF))
    }

    fn call(&mut self, form: &Form, name: &str, arguments: &[Form]) -> Result<Typed, Wrong> {
        let function = self.names.functions.get(name);
        let function = function.ok_or_else(|| form.wrong(format!("{name} does not take this")))?;
        if function.params.len() != arguments.len() {
            return Err(form.wrong(format!("{name} takes {}", function.params.len())));
        }
        let (id, result) = (function.id, function.result);
        let values = arguments.iter().zip(&function.params);
        let values = values.map(|(form, (_, kind))| self.of(form, *kind));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let results = self.module.call(self.f, id, &values);
        Ok((results.expect("as many arguments")[0], result))
    }

    fn receive(&mut self, channel: &Form) -> Result<Typed, Wrong> {
        let channel = self.number(channel)?;
        let received = self.f.variable(REF);
        let [head, done] = [(); 2].map(|()| self.f.create_block());
        self.f.ins().jump(head, &[]);
        self.f.switch_to_block(head);
        self.f.poll();
        let zero = self.f.int(0);
        let value = self.leaf(natives::receive, channel, zero, REF).0;
        self.f.def_var(received, value);
        self.f.ins().brif(value, done, &[], head, &[]);
        self.f.switch_to_block(done);
        Ok((self.f.use_var(received), REF))
    }

    fn go(&mut self, name: &Form, argument: &Form) -> Result<Typed, Wrong> {
        let entry = self.function(name)?.entry;
        let entry = entry.ok_or_else(|| name.wrong("a goroutine's code takes one reference"))?;
        let argument = self.reference(argument)?;
        let entry = self.module.reference(entry, self.f.func);
        let entry = self.f.ins().func_addr(I64, entry);
        Ok(self.leaf(natives::go, entry, argument, INT))
    }
}
