//! A function as the front makes it: blocks of operations on values.
//!
//! A value is a variable: it may be set in several places. Operations read words and write words.

use crate::encoder::Test;

/// A function of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FuncId(pub(crate) usize);

/// A word that a function computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub(crate) usize);

/// A part of a function without branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub(crate) usize);

/// What a word is to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// A reference, or an address in the stack: in the stack map of every call that it lives
    /// across, and a move of the stack adjusts it.
    Reference,
}

/// A plain word.
pub const INT: Kind = Kind::Plain;
/// A reference.
pub const REF: Kind = Kind::Reference;

/// What an operation does with two words; the second one may be read only.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
}

/// What a call goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Callee {
    Function(FuncId),
    Address(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Constant(Value, usize),
    Copy(Value, Value),
    Arithmetic(Arithmetic, Value, Value, Value),
    /// The word at an address and a number of words.
    Load(Value, Value, u32),
    Store(Value, Value, u32),
    /// The address of a slot of the frame, by its number.
    SlotAddress(Value, usize),
    StackPointer(Value),
    Goroutine(Value),
    SetGoroutine(Value),
    /// The values of an exception, first in a landing pad.
    Landed(Value, Value),
    Call {
        callee: Callee,
        args: Vec<Value>,
        result: Value,
        landing: Option<Block>,
    },
}

/// How a block ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Jump(Block),
    Branch { test: Test, words: [Value; 2], then: Block, otherwise: Block },
    Return(Value),
}

impl Op {
    /// The values that it reads.
    pub(crate) fn reads(&self) -> Vec<Value> {
        match self {
            Op::Copy(_, a) | Op::Load(_, a, _) | Op::SetGoroutine(a) => vec![*a],
            Op::Arithmetic(_, _, a, b) | Op::Store(a, b, _) => vec![*a, *b],
            Op::Call { args, .. } => args.clone(),
            _ => vec![],
        }
    }

    /// The values that it writes.
    pub(crate) fn writes(&self) -> Vec<Value> {
        match self {
            Op::Constant(to, _)
            | Op::Copy(to, _)
            | Op::Arithmetic(_, to, ..)
            | Op::Load(to, ..)
            | Op::SlotAddress(to, _)
            | Op::StackPointer(to)
            | Op::Goroutine(to)
            | Op::Call { result: to, .. } => vec![*to],
            Op::Landed(a, b) => vec![*a, *b],
            Op::Store(..) | Op::SetGoroutine(_) => vec![],
        }
    }

    /// Where it may go on, beside the next operation.
    pub(crate) fn landing(&self) -> Option<Block> {
        if let Op::Call { landing, .. } = self { *landing } else { None }
    }
}

impl End {
    pub(crate) fn reads(&self) -> Vec<Value> {
        match *self {
            End::Jump(_) => vec![],
            End::Branch { words, .. } => words.to_vec(),
            End::Return(value) => vec![value],
        }
    }

    pub(crate) fn next(&self) -> Vec<Block> {
        match *self {
            End::Jump(block) => vec![block],
            End::Branch { then, otherwise, .. } => vec![then, otherwise],
            End::Return(_) => vec![],
        }
    }
}

/// The code of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockCode {
    pub(crate) ops: Vec<Op>,
    pub(crate) end: Option<End>,
}

/// A slot of the frame that has an address.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) words: u32,
    /// Which of them are references: zeroed first, and in every stack map.
    pub(crate) references: Vec<u32>,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueData {
    pub(crate) kind: Kind,
    /// The register that it is in, if there are so many.
    pub(crate) kept: Option<usize>,
}

/// A function's code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) params: Vec<Value>,
    pub(crate) values: Vec<ValueData>,
    pub(crate) slots: Vec<Slot>,
    /// The first one is the entry.
    pub(crate) blocks: Vec<BlockCode>,
    /// In which order they are placed.
    pub(crate) order: Vec<Block>,
    /// Whether it calls `switch_out`, which keeps few registers.
    pub(crate) switches: bool,
}
