//! A function under construction.

use stackmark_stack::asm::layout::{G_STACK_LIMIT, NativeFn};
use stackmark_stack::{YIELD, asm, poll};

use crate::encoder::{Machine, Test};
use crate::ir::{Arithmetic, Block, Body, Callee, End, FuncId, Kind, Op, Slot, Value, ValueData};

/// The kind of stack that functions run on. On their own stacks threads run them between native
/// frames; then nothing is switched, and calls of native code go by `call_native`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunsOn {
    /// The stacks of goroutines.
    #[default]
    Goroutines,
    /// The stacks of threads.
    Threads,
}

impl RunsOn {
    /// What calls native code.
    fn call(self) -> usize {
        match self {
            RunsOn::Goroutines => asm::call_system_address(),
            RunsOn::Threads => asm::call_native_address(),
        }
    }
}

/// How a function is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By managed code.
    Managed,
    /// By a goroutine's start: the first parameter is the goroutine.
    Goroutine,
    /// By native code that calls back: the first parameter is the address of a word that holds the
    /// goroutine.
    Callback,
}

/// A function under construction. What it computes with are [values](Value), which are variables:
/// [`Function::set`] gives one another word. Each lives in the frame, in a word that the stack maps
/// have if it is a reference, while it is alive and no longer.
#[derive(Debug)]
pub struct Function {
    pub(crate) body: Body,
    machine: &'static Machine,
    runs_on: RunsOn,
    at: Block,
}

impl Function {
    /// Begins a function, with the check of the stack. What a goroutine starts with has room, and
    /// its callee makes the check.
    pub(crate) fn new(
        machine: &'static Machine,
        runs_on: RunsOn,
        params: &[Kind],
        start: Start,
    ) -> Function {
        let mut f = Function { body: Body::default(), machine, runs_on, at: Block(0) };
        let entry = f.block();
        f.switch_to(entry);
        f.body.params = params.iter().map(|kind| f.value(*kind)).collect();
        match start {
            Start::Managed => {}
            Start::Goroutine => {
                let goroutine = f.param(0);
                f.push(Op::SetGoroutine(goroutine));
            }
            Start::Callback => {
                let block = f.param(0);
                let goroutine = f.load(block, 0);
                f.push(Op::SetGoroutine(goroutine));
            }
        }
        if start != Start::Goroutine {
            f.check_stack();
        }
        f
    }

    fn value(&mut self, kind: Kind) -> Value {
        self.body.values.push(ValueData { kind, kept: None });
        Value(self.body.values.len() - 1)
    }

    /// # Panics
    /// Behind the end of a block.
    fn push(&mut self, op: Op) {
        let block = &mut self.body.blocks[self.at.0];
        assert!(block.end.is_none(), "the block has ended");
        block.ops.push(op);
    }

    fn end(&mut self, end: End) {
        let block = &mut self.body.blocks[self.at.0];
        assert!(block.end.is_none(), "the block has ended");
        block.end = Some(end);
    }

    /// The `index`th parameter.
    pub fn param(&self, index: usize) -> Value {
        self.body.params[index]
    }

    /// The parameters.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn params<const N: usize>(&self) -> [Value; N] {
        self.body.params[..].try_into().expect("as many parameters as the function has")
    }

    /// A block, to be filled after [`Function::switch_to`].
    pub fn block(&mut self) -> Block {
        self.body.blocks.push(Default::default());
        Block(self.body.blocks.len() - 1)
    }

    /// What comes next is in this block.
    pub fn switch_to(&mut self, block: Block) {
        self.at = block;
        self.body.order.push(block);
    }

    /// Goes on in a block.
    pub fn jump(&mut self, block: Block) {
        self.end(End::Jump(block));
    }

    /// Goes on in one of two blocks.
    pub fn branch(&mut self, test: Test, a: Value, b: Value, then: Block, otherwise: Block) {
        self.end(End::Branch { test, words: [a, b], then, otherwise });
    }

    /// Goes on in `then` if the word is not 0.
    pub fn branch_if(&mut self, word: Value, then: Block, otherwise: Block) {
        let zero = self.int(0);
        self.branch(Test::Differ, word, zero, then, otherwise);
    }

    /// Goes on in a new block if the word is `case`, and in another new one, which is returned, if
    /// not.
    pub fn case(&mut self, word: Value, case: usize) -> Block {
        let (yes, no) = (self.block(), self.block());
        let case = self.int(case);
        self.branch(Test::Equal, word, case, yes, no);
        self.switch_to(yes);
        no
    }

    /// Returns a word.
    pub fn return_(&mut self, value: Value) {
        self.end(End::Return(value));
    }

    /// A constant.
    pub fn int(&mut self, value: usize) -> Value {
        let to = self.value(Kind::Plain);
        self.push(Op::Constant(to, value));
        to
    }

    /// A variable, which is set before it is read.
    pub fn variable(&mut self, kind: Kind) -> Value {
        self.value(kind)
    }

    /// Gives a variable another word.
    pub fn set(&mut self, variable: Value, word: Value) {
        self.push(Op::Copy(variable, word));
    }

    /// The word as a reference from now on.
    pub fn reference(&mut self, word: Value) -> Value {
        let to = self.value(Kind::Reference);
        self.push(Op::Copy(to, word));
        to
    }

    /// The plain word, in a register that callees keep, the `index`th of them. Where there are not
    /// so many, it is in the frame.
    ///
    /// # Panics
    /// If the function [switches](Function::switch_out).
    pub fn kept(&mut self, index: usize, word: Value) -> Value {
        assert!(!self.body.switches, "switches keep no registers");
        let to = self.value(Kind::Plain);
        self.body.values[to.0].kept = Some(index);
        self.push(Op::Copy(to, word));
        to
    }

    fn arithmetic(&mut self, what: Arithmetic, a: Value, b: Value) -> Value {
        let to = self.value(Kind::Plain);
        self.push(Op::Arithmetic(what, to, a, b));
        to
    }

    /// `a + b`
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.arithmetic(Arithmetic::Add, a, b)
    }

    /// `a - b`
    pub fn subtract(&mut self, a: Value, b: Value) -> Value {
        self.arithmetic(Arithmetic::Subtract, a, b)
    }

    /// `a * by`
    pub fn multiply(&mut self, a: Value, by: usize) -> Value {
        let by = self.int(by);
        self.arithmetic(Arithmetic::Multiply, a, by)
    }

    /// The word that lies `word` words behind an address.
    pub fn load(&mut self, address: Value, word: usize) -> Value {
        let to = self.value(Kind::Plain);
        self.push(Op::Load(to, address, word as u32));
        to
    }

    /// The same, a reference.
    pub fn load_reference(&mut self, address: Value, word: usize) -> Value {
        let to = self.value(Kind::Reference);
        self.push(Op::Load(to, address, word as u32));
        to
    }

    /// Stores a word `word` words behind an address. No write barrier.
    pub fn store(&mut self, value: Value, address: Value, word: usize) {
        self.push(Op::Store(value, address, word as u32));
    }

    /// The address of a new slot of the frame, of so many bytes, rounded up to whole words. It is a
    /// reference: a move of the stack adjusts it. Of the words, those that `references` says are
    /// references themselves, and 0 at first.
    pub fn slot(&mut self, bytes: u32, references: &[bool]) -> Value {
        let words = bytes.div_ceil(self.machine.word).max(1);
        assert!(references.len() <= words as usize, "{words} words");
        let references = (0..).zip(references).filter(|(_, is)| **is).map(|(i, _)| i).collect();
        self.body.slots.push(Slot { words, references });
        let to = self.value(Kind::Reference);
        self.push(Op::SlotAddress(to, self.body.slots.len() - 1));
        to
    }

    /// The goroutine's header.
    pub fn goroutine(&mut self) -> Value {
        let to = self.value(Kind::Plain);
        self.push(Op::Goroutine(to));
        to
    }

    fn limit(&mut self) -> Value {
        let goroutine = self.goroutine();
        self.load(goroutine, G_STACK_LIMIT / size_of::<usize>())
    }

    /// The check of the prologue: makes room for frames, and answers requests.
    fn check_stack(&mut self) {
        let limit = self.limit();
        let sp = self.value(Kind::Plain);
        self.push(Op::StackPointer(sp));
        self.poll_if(Test::Below, sp, limit);
    }

    /// Polls, for loops: the request alone.
    pub fn poll(&mut self) {
        let limit = self.limit();
        let asked = self.int(usize::MAX);
        self.poll_if(Test::Equal, limit, asked);
    }

    fn poll_if(&mut self, test: Test, a: Value, b: Value) {
        let (cold, go_on) = (self.block(), self.block());
        self.branch(test, a, b, cold, go_on);
        self.switch_to(cold);
        self.poll_always();
        self.jump(go_on);
        self.switch_to(go_on);
    }

    /// Polls, whether that is asked for or not.
    pub fn poll_always(&mut self) {
        let zero = self.int(0);
        self.leaf(poll, zero, zero);
    }

    /// Runs `body` for each number from 0 on that is below `count`, and polls each time.
    pub fn repeat(&mut self, count: Value, body: impl FnOnce(&mut Self, Value)) {
        let (next, one) = (self.variable(Kind::Plain), self.int(1));
        let zero = self.int(0);
        self.set(next, zero);
        let [head, inside, done] = [(); 3].map(|()| self.block());
        self.jump(head);
        self.switch_to(head);
        self.poll();
        self.branch(Test::Below, next, count, inside, done);
        self.switch_to(inside);
        body(self, next);
        let after = self.add(next, one);
        self.set(next, after);
        self.jump(head);
        self.switch_to(done);
    }

    fn call_op(&mut self, callee: Callee, args: &[Value], landing: Option<Block>) -> Value {
        let result = self.value(Kind::Plain);
        self.push(Op::Call { callee, args: args.to_vec(), result, landing });
        result
    }

    /// Calls a managed function. Its result is plain.
    pub fn call(&mut self, callee: FuncId, args: &[Value]) -> Value {
        self.call_op(Callee::Function(callee), args, None)
    }

    /// The same. Returns also a landing pad: a block for when the callee is left by an exception,
    /// and the exception's two values, of which the second one is a reference.
    pub fn try_call(&mut self, callee: FuncId, args: &[Value]) -> (Value, Block, [Value; 2]) {
        let landing = self.block();
        let result = self.call_op(Callee::Function(callee), args, Some(landing));
        let values = [self.value(Kind::Plain), self.value(Kind::Reference)];
        self.body.blocks[landing.0].ops.push(Op::Landed(values[0], values[1]));
        (result, landing, values)
    }

    /// Calls a native function of two words: a safepoint. Its result is plain.
    pub fn leaf(&mut self, function: NativeFn, a: Value, b: Value) -> Value {
        let function = self.int(function as *const () as usize);
        self.call_op(Callee::Address(self.runs_on.call()), &[function, a, b], None)
    }

    /// The same by a plain call, on the stack that managed code runs on.
    pub fn plain_call(&mut self, function: NativeFn, a: Value, b: Value) -> Value {
        self.call_op(Callee::Address(function as *const () as usize), &[a, b], None)
    }

    /// Lets other goroutines run.
    pub fn yield_now(&mut self) {
        let value = self.int(YIELD);
        self.switch_out(value);
    }

    /// Switches from the goroutine to the code that runs it, with a plain word. Returns the word
    /// with which it is switched back to.
    ///
    /// # Panics
    /// On a thread's own stack, and if a value is [kept](Function::kept).
    pub fn switch_out(&mut self, value: Value) -> Value {
        assert_eq!(self.runs_on, RunsOn::Goroutines, "nothing is switched to");
        assert!(self.body.values.iter().all(|value| value.kept.is_none()), "a value is kept");
        self.body.switches = true;
        let goroutine = (!self.machine.switch_keeps_goroutine).then(|| self.goroutine());
        let result = self.call_op(Callee::Address(asm::switch_out_address()), &[value], None);
        if let Some(goroutine) = goroutine {
            self.push(Op::SetGoroutine(goroutine));
        }
        result
    }
}
