//! Calls: of managed, native, leaf and foreign functions, with results beyond the registers, and
//! with landing pads.

use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, InstBuilder, MemFlagsData,
    TrapCode, Type, Value, types::I64,
};
use cranelift_module::FuncId;
use stackmark::stack::asm::layout::{G_RESULTS, NativeFn, RESULT_WORDS};

use super::Function;
use crate::check::plain;
use crate::error::CompileError;
use crate::kind::{Kind, ResultPlace, Signature};
use crate::natives;

impl Function<'_> {
    /// Calls a managed function of the module. Returns its results.
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub fn call(&mut self, callee: FuncId, args: &[Value]) -> Result<Vec<Value>, CompileError> {
        let signature = self.declarations.get(callee).signature.clone();
        let what = || format!("a call of {}", self.declarations.get(callee).name);
        self.check_count(&what, signature.params().len(), args.len())?;
        let reference = self.declarations.reference(callee, self.builder.func);
        let call = self.ins().call(reference, args);
        let registers = self.inst_results(call).to_vec();
        Ok(self.results(&signature, &registers))
    }

    /// Calls managed code at an address, for example of [`Function::address_of`].
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

    /// As [`Function::call`]; an exception that leaves the callee goes on in `landing`, whose two
    /// parameters, made here, are the words that were [raised](Function::raise). The first is
    /// plain, the second a reference.
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub fn try_call(
        &mut self,
        callee: FuncId,
        args: &[Value],
        landing: Block,
    ) -> Result<Vec<Value>, CompileError> {
        let signature = self.declarations.get(callee).signature.clone();
        let what = || format!("a call of {}", self.declarations.get(callee).name);
        self.check_count(&what, signature.params().len(), args.len())?;
        let reference = self.declarations.reference(callee, self.builder.func);
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
        let clif = func.dfg.ext_funcs[reference].signature;
        let handlers = [ExceptionTableItem::Default(caught)];
        let table = ExceptionTableData::new(clif, returned, handlers);
        let table = func.dfg.exception_tables.push(table);
        self.ins().try_call(reference, args, table);
        self.switch_to_block(normal);
        Ok(self.results(&signature, &registers))
    }

    /// The results of a call, behind it.
    fn results(&mut self, signature: &Signature, registers: &[Value]) -> Vec<Value> {
        let mut registers = registers.iter().copied();
        let places: Vec<(Kind, ResultPlace)> = signature.places().collect();
        let place = |(kind, place): (Kind, ResultPlace)| {
            let value = match place {
                ResultPlace::Register => registers.next().expect("a register for the result"),
                ResultPlace::Word(word) => self.result_word(word, kind.clif()),
            };
            if kind.is_reference() { self.reference(value) } else { value }
        };
        places.into_iter().map(place).collect()
    }

    /// Returns these results.
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    pub fn return_(&mut self, results: &[Value]) -> Result<(), CompileError> {
        let signature = self.signature.clone();
        self.check_count(&|| "a return".to_owned(), signature.results().len(), results.len())?;
        let mut registers = Vec::new();
        for ((_, place), result) in signature.places().zip(results) {
            match place {
                ResultPlace::Register => registers.push(*result),
                ResultPlace::Word(word) => self.set_result_word(word, *result),
            }
        }
        self.ins().return_(&registers);
        Ok(())
    }

    fn check_count(
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

    /// The address of a managed function of the module, as [`Function::call_indirect`] takes it.
    pub fn address_of(&mut self, function: FuncId) -> Value {
        let reference = self.declarations.reference(function, self.builder.func);
        self.ins().func_addr(I64, reference)
    }

    /// Loads a word that a native, or a function with many results, has left in the goroutine's
    /// header. Right behind the call: the next call may overwrite it.
    pub fn result_word(&mut self, word: usize, of: Type) -> Value {
        let goroutine = self.goroutine();
        self.ins().load(of, plain(), goroutine, (G_RESULTS + 8 * word) as i32)
    }

    pub(super) fn set_result_word(&mut self, word: usize, value: Value) {
        let goroutine = self.goroutine();
        let at = (G_RESULTS + 8 * word) as i32;
        self.ins().store(MemFlagsData::trusted(), value, goroutine, at);
    }

    /// Calls a native function on the system stack, which is atomic to the collector until it
    /// returns, parks, or goes into a foreign call. It gets the address of the goroutine's header,
    /// the first argument, and the others in the header's result words from the second on. Its
    /// result is plain: [declare](Function::reference) it if it is a reference.
    ///
    /// # Panics
    /// With more arguments than there are result words.
    pub fn native(&mut self, native: NativeFn, args: &[Value]) -> Value {
        assert!(args.len() <= RESULT_WORDS, "{} arguments for a native function", args.len());
        for (word, arg) in args.iter().enumerate().skip(1) {
            self.set_result_word(word, *arg);
        }
        let goroutine = self.goroutine();
        let first = args.first().copied().unwrap_or_else(|| self.int(0));
        let call = self.call_system(native, goroutine, first);
        self.inst_results(call)[0]
    }

    /// Calls a C function of two words that is short, waits for nothing, calls nothing back and
    /// keeps no address of the stack. The cheapest way out.
    pub fn leaf(&mut self, function: NativeFn, a: Value, b: Value) -> Value {
        let call = self.call_system(function, a, b);
        self.inst_results(call)[0]
    }

    /// Calls the C function at `address`, which may wait, call back and take long, with up to six
    /// integers or addresses outside of the heap, as a foreign call. Returns its result and errno.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn foreign(&mut self, address: Value, args: &[Value]) -> (Value, Value) {
        assert!(args.len() <= natives::FOREIGN_ARGUMENTS, "{} arguments of C", args.len());
        let count = self.int(args.len() as i64);
        let words: Vec<Value> = [address, count].iter().chain(args).copied().collect();
        let result = self.native(natives::foreign, &words);
        (result, self.result_word(0, I64))
    }

    /// Leaves frames for the youngest [landing pad](Function::try_call), with a plain word and a
    /// reference. Without a landing pad the process ends by
    /// [`Host::fatal`](stackmark::stack::Host::fatal). The block is filled.
    pub fn raise(&mut self, word: Value, reference: Value) {
        self.native(natives::raise, &[word, reference]);
        self.ins().trap(TrapCode::unwrap_user(1));
    }
}
