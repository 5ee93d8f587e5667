//! Calls of native, leaf and managed functions, with results beyond the registers.

use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, Inst, InstBuilder,
    MemFlagsData, Type, Value, types, types::I64,
};
use stackmark::stack::YIELD;
use stackmark::stack::asm::layout::{G_RESULTS, NativeFn, RESULT_WORDS};

use super::Function;
use crate::declarations::Callee;
use crate::error::CompileError;
use crate::kind::{Kind, ResultPlace, Signature};
use crate::natives;
use crate::trace::plain;

impl<M> Function<'_, M> {
    pub(super) fn call_system(&mut self, native: NativeFn, a: Value, b: Value) -> Inst {
        let native = self.address(native as *const () as usize);
        let callee = self.outside.call_system;
        self.ins().call(callee, &[native, a, b])
    }

    /// Lets other goroutines run, if there is a scheduler. On a thread's own stack it lets other
    /// threads run.
    pub fn yield_now(&mut self) {
        if self.outside.switch_out.is_none() {
            self.native(natives::yield_thread, &[]);
            return;
        }
        let value = self.int(YIELD as i64);
        self.switch_out(value);
    }

    /// Switches from the goroutine to the code that runs it, with a plain word. Returns the word
    /// with which it is switched back to.
    ///
    /// # Panics
    /// If the module is for [threads' own stacks](crate::RunsOn::native_stacks).
    pub fn switch_out(&mut self, value: Value) -> Value {
        let callee = self.outside.switch_out;
        let callee = callee.unwrap_or_else(|| {
            panic!("{}: nothing is switched to from a thread's own stack", self.name())
        });
        let call = self.ins().call(callee, &[value]);
        self.inst_results(call)[0]
    }

    /// Calls a native function on the system stack, which is atomic to the collector until it
    /// returns, parks, or goes into a foreign call. It gets the address of the goroutine's header,
    /// the first argument, and the others in the header's result words from the second on. Its
    /// result is plain: [declare](Function::reference) it if it is a reference. Arguments become
    /// [words](Function::to_word).
    ///
    /// # Panics
    /// With more arguments than there are result words, or one of more than 64 bits.
    pub fn native(&mut self, native: NativeFn, args: &[Value]) -> Value {
        assert!(args.len() <= RESULT_WORDS, "{} arguments for a native function", args.len());
        let goroutine = self.goroutine();
        for (word, arg) in args.iter().enumerate().skip(1) {
            let at = (G_RESULTS + 8 * word) as i32;
            let word = match self.func.dfg.value_type(*arg).bits() {
                64 => *arg,
                _ => self.to_word(*arg),
            };
            self.ins().store(MemFlagsData::trusted(), word, goroutine, at);
        }
        let first = match args.first() {
            Some(first) => self.to_word(*first),
            None => self.int(0),
        };
        let call = self.call_system(native, goroutine, first);
        self.inst_results(call)[0]
    }

    /// A value as a word: an integer is extended by zeros, a floating-point number is its bits.
    ///
    /// # Panics
    /// If it has more than 64 bits.
    pub fn to_word(&mut self, value: Value) -> Value {
        let of = self.func.dfg.value_type(value);
        assert!(of.bits() <= 64, "{}: a value of type {of} is no word", self.name());
        let value = match of.is_int() {
            true => value,
            false => {
                let bits = Type::int(of.bits() as u16).expect("of a whole number of bytes");
                self.ins().bitcast(bits, MemFlagsData::new(), value)
            }
        };
        if of.bits() < 64 { self.ins().uextend(I64, value) } else { value }
    }

    /// The value of this kind that a word holds.
    pub(crate) fn of_word(&mut self, kind: Kind, word: Value) -> Value {
        let of = kind.clif();
        let bits = Type::int(of.bits() as u16).expect("a kind that functions pass");
        let word = if bits == types::I64 { word } else { self.ins().ireduce(bits, word) };
        if of.is_int() { word } else { self.ins().bitcast(of, MemFlagsData::new(), word) }
    }

    /// Calls a C function of two words that is short, waits for nothing, calls nothing back and
    /// keeps no address of the stack. The cheapest way out.
    pub fn leaf(&mut self, function: NativeFn, a: Value, b: Value) -> Value {
        let call = self.call_system(function, a, b);
        self.inst_results(call)[0]
    }

    /// As [`Function::leaf`], of the function at an address.
    pub fn leaf_at(&mut self, function: Value, a: Value, b: Value) -> Value {
        let callee = self.outside.call_system;
        let call = self.ins().call(callee, &[function, a, b]);
        self.inst_results(call)[0]
    }

    /// Calls a declared function. Returns its results.
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub(crate) fn call_declared(
        &mut self,
        callee: &Callee,
        args: &[Value],
    ) -> Result<Vec<Value>, CompileError> {
        let Callee { name, signature, reference } = callee;
        self.check_count(&|| format!("a call of {name}"), signature.params().len(), args.len())?;
        let call = self.ins().call(*reference, args);
        let registers = self.inst_results(call).to_vec();
        Ok(self.results(signature, &registers))
    }

    /// As [`Function::call_declared`], with a landing pad: see [`Function::try_call`].
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub(crate) fn try_call_declared(
        &mut self,
        callee: &Callee,
        args: &[Value],
        landing: Block,
    ) -> Result<Vec<Value>, CompileError> {
        let Callee { name, signature, reference } = callee;
        self.check_count(&|| format!("a call of {name}"), signature.params().len(), args.len())?;
        let normal = self.create_block();
        let registers: Vec<Value> = signature
            .in_registers()
            .map(|result| self.builder.append_block_param(normal, result.clif()))
            .collect();
        self.builder.append_block_param(landing, I64);
        let raised = self.builder.append_block_param(landing, I64);
        self.reference(raised);
        let returned = (0..registers.len() as u32).map(BlockArg::TryCallRet);
        let caught = [BlockArg::TryCallExn(0), BlockArg::TryCallExn(1)];
        let func = &mut self.builder.func;
        let returned = BlockCall::new(normal, returned, &mut func.dfg.value_lists);
        let caught = BlockCall::new(landing, caught, &mut func.dfg.value_lists);
        let clif = func.dfg.ext_funcs[*reference].signature;
        let handlers = [ExceptionTableItem::Default(caught)];
        let table = ExceptionTableData::new(clif, returned, handlers);
        let table = func.dfg.exception_tables.push(table);
        self.ins().try_call(*reference, args, table);
        self.switch_to_block(normal);
        Ok(self.results(signature, &registers))
    }

    /// Calls managed code at an address, for example of
    /// [`Function::address_of`](crate::Function::address_of).
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub fn call_indirect(
        &mut self,
        signature: &Signature,
        callee: Value,
        args: &[Value],
    ) -> Result<Vec<Value>, CompileError> {
        let what = || "an indirect call".to_owned();
        self.check_count(&what, signature.params().len(), args.len())?;
        let clif = self.import_signature(signature.clif());
        let call = self.ins().call_indirect(clif, callee, args);
        let registers = self.inst_results(call).to_vec();
        Ok(self.results(signature, &registers))
    }

    /// The results of a call, behind it.
    pub(super) fn results(&mut self, signature: &Signature, registers: &[Value]) -> Vec<Value> {
        let mut registers = registers.iter().copied();
        let places: Vec<(Kind, ResultPlace)> = signature.places().collect();
        let place = |(kind, place): (Kind, ResultPlace)| match place {
            ResultPlace::Register => {
                let value = registers.next().expect("a register for the result");
                if kind.is_reference() { self.reference(value) } else { value }
            }
            ResultPlace::Word(word) if kind.is_reference() => self.result_reference(word),
            ResultPlace::Word(word) => self.result_word(word, kind.clif()),
        };
        places.into_iter().map(place).collect()
    }

    /// Returns these results.
    ///
    /// # Errors
    /// [`CompileError::Arity`], [`CompileError::ResultType`].
    pub fn return_(&mut self, results: &[Value]) -> Result<(), CompileError> {
        let signature = self.signature.clone();
        self.check_count(&|| "a return".to_owned(), signature.results().len(), results.len())?;
        for (index, (kind, result)) in signature.results().iter().zip(results).enumerate() {
            let (expected, found) = (kind.clif(), self.func.dfg.value_type(*result));
            if found != expected {
                let function = self.name.clone();
                return Err(CompileError::ResultType { function, index, expected, found });
            }
        }
        let mut registers = Vec::new();
        let mut goroutine = None;
        for ((_, place), result) in signature.places().zip(results) {
            match place {
                ResultPlace::Register => registers.push(*result),
                ResultPlace::Word(word) => {
                    let goroutine = *goroutine.get_or_insert_with(|| self.goroutine());
                    let at = (G_RESULTS + 8 * word) as i32;
                    self.ins().store(MemFlagsData::trusted(), *result, goroutine, at);
                }
            }
        }
        self.ins().return_(&registers);
        Ok(())
    }

    pub(super) fn check_count(
        &self,
        what: &dyn Fn() -> String,
        expected: usize,
        found: usize,
    ) -> Result<(), CompileError> {
        if expected == found {
            return Ok(());
        }
        Err(CompileError::Arity { function: self.name.clone(), what: what(), expected, found })
    }

    /// Loads a word that a native, or a function with many results, has left in the goroutine's
    /// header. Right behind the call: the next call may overwrite it.
    pub fn result_word(&mut self, word: usize, of: Type) -> Value {
        let goroutine = self.goroutine();
        self.ins().load(of, plain(), goroutine, (G_RESULTS + 8 * word) as i32)
    }

    /// As [`Function::result_word`], for a reference, which is declared.
    pub fn result_reference(&mut self, word: usize) -> Value {
        let goroutine = self.goroutine();
        let at = (G_RESULTS + 8 * word) as i32;
        let value = self.ins().load(I64, MemFlagsData::trusted(), goroutine, at);
        self.reference(value)
    }

    /// Keeps references alive up to here: for native code that was given them and may still read
    /// their objects.
    pub fn keep_alive(&mut self, references: &[Value]) {
        let goroutine = self.goroutine();
        let at = (G_RESULTS + 8 * (RESULT_WORDS - 1)) as i32;
        for reference in references {
            self.ins().store(MemFlagsData::trusted(), *reference, goroutine, at);
        }
    }
}
