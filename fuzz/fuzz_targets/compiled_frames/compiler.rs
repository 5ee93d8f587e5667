//! The managed code: one function for each layout of a frame, which does what a native function
//! tells it to.
//!
//! A function asks `fresh` for the references that it holds, then asks `step` for its next action,
//! again and again, and after each action shows everything that it holds to `check`. All values are
//! live at every call.

use jit::Builder;
use jit::stackmark_cranelift::{
    FuncId, INT, InstBuilder, IntCC, Module, REF, Start, Value, types::I64,
};
use stackmark_stack::asm::layout::NativeFn;
use stackmark_stack::poll;
use stackmark_stack::unwind::Region;

/// A layout of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// References held.
    pub(crate) references: usize,
    /// Bytes of an array in the frame, to which the frame has a pointer.
    pub(crate) array: u32,
}

/// The layouts. The index is the function's number.
pub(crate) const LAYOUTS: [Layout; 8] = [
    Layout { references: 0, array: 8 },
    Layout { references: 1, array: 8 },
    Layout { references: 2, array: 32 },
    Layout { references: 3, array: 104 },
    Layout { references: 5, array: 8 },
    Layout { references: 8, array: 200 },
    Layout { references: 13, array: 16 },
    Layout { references: 4, array: 640 },
];

/// What `step` answers.
pub(crate) mod action {
    /// Return.
    pub(crate) const RETURN: usize = 0;
    /// Poll.
    pub(crate) const POLL: usize = 1;
    /// Ask for the first reference anew.
    pub(crate) const REPLACE: usize = 2;
    /// Do nothing.
    pub(crate) const NOTHING: usize = 3;
    /// Call the function of the layout `action - CALL`.
    pub(crate) const CALL: usize = 4;
}

/// The native functions behind the managed ones.
#[derive(Clone, Copy)]
pub(crate) struct Natives {
    /// `(_, layout)`: a frame begins.
    pub(crate) begin: NativeFn,
    /// `(layout, index)`: the reference to hold.
    pub(crate) fresh: NativeFn,
    /// `(_, layout)`: the next action.
    pub(crate) step: NativeFn,
    /// `(word, index)`: what the frame holds there. The index after the last reference is the word
    /// in the array, the one after that is what a callee has returned.
    pub(crate) check: NativeFn,
    /// `(_, layout)`: what to return.
    pub(crate) leave: NativeFn,
}

/// The compiled functions.
pub(crate) struct Compiled {
    /// `entry(goroutine, layout)`, for a goroutine to begin with.
    pub(crate) entry: usize,
    /// `callback(goroutine)`, for native code to call: runs a function of the second layout.
    pub(crate) callback: usize,
    region: Region,
}

/// The function of one layout.
fn body(
    f: &mut Builder<'_>,
    module: &mut Module,
    number: usize,
    functions: &[FuncId],
    natives: Natives,
) {
    let Layout { references, array } = LAYOUTS[number];
    f.enter(Start::Managed);
    // The address of the array is taken once, and every access goes through the one declared value.
    let (_, array_address) = f.slot(array, &[]).expect("a slot");
    let last = array as i32 - 8;
    let layout = f.int(number as i64);
    f.leaf(natives.begin, layout, layout);
    let held: Vec<_> = (0..references)
        .map(|index| {
            let variable = f.variable(REF);
            let index = f.int(index as i64);
            let word = f.leaf(natives.fresh, layout, index);
            f.def_var(variable, word);
            variable
        })
        .collect();
    let index = f.int(references as i64);
    let word = f.leaf(natives.fresh, layout, index);
    f.store_plain(word, array_address, last);

    let (again, done) = (f.create_block(), f.create_block());
    f.ins().jump(again, &[]);
    f.switch_to_block(again);
    let check = |f: &mut Builder<'_>, word: Value, index: usize| {
        let index = f.int(index as i64);
        f.leaf(natives.check, word, index);
    };
    for (index, &variable) in held.iter().enumerate() {
        let word = f.use_var(variable);
        check(f, word, index);
    }
    let word = f.load_plain(I64, array_address, last);
    check(f, word, references);
    let next = f.leaf(natives.step, layout, layout);

    let case = |f: &mut Builder<'_>, answer: usize| {
        let (yes, no) = (f.create_block(), f.create_block());
        let is = f.ins().icmp_imm_s(IntCC::Equal, next, answer as i64);
        f.ins().brif(is, yes, &[], no, &[]);
        f.switch_to_block(yes);
        no
    };
    let no = case(f, action::RETURN);
    f.ins().jump(done, &[]);
    f.switch_to_block(no);
    let no = case(f, action::POLL);
    let zero = f.int(0);
    f.leaf(poll, zero, zero);
    f.ins().jump(again, &[]);
    f.switch_to_block(no);
    let no = case(f, action::REPLACE);
    if let Some(&variable) = held.first() {
        let zero = f.int(0);
        let word = f.leaf(natives.fresh, layout, zero);
        f.def_var(variable, word);
    }
    f.ins().jump(again, &[]);
    f.switch_to_block(no);
    for (callee, &function) in functions.iter().enumerate() {
        let no = case(f, action::CALL + callee);
        let result = jit::call(f, module, function, &[]);
        check(f, result, references + 1);
        f.ins().jump(again, &[]);
        f.switch_to_block(no);
    }
    f.ins().jump(again, &[]);
    f.switch_to_block(done);
    let result = f.leaf(natives.leave, layout, layout);
    f.return_(&[result]).expect("one result");
}

impl Compiled {
    /// Compiles the functions of all layouts.
    pub(crate) fn new(natives: Natives) -> Compiled {
        const NAMES: [&str; LAYOUTS.len()] = [
            "layout_0", "layout_1", "layout_2", "layout_3", "layout_4", "layout_5", "layout_6",
            "layout_7",
        ];
        let mut compiler = jit::Compiler::default();
        let functions = NAMES.map(|name| compiler.declare(name, &[]));
        for (number, &function) in functions.iter().enumerate() {
            compiler.define(function, |f, module| body(f, module, number, &functions, natives));
        }
        let mut entry = |name, params: &[_], callee| {
            compiler.function(name, params, |f, module| {
                f.enter(Start::Goroutine);
                let result = jit::call(f, module, callee, &[]);
                f.return_(&[result]).expect("one result");
            })
        };
        let entries =
            [entry("entry", &[INT, INT], functions[0]), entry("callback", &[INT], functions[1])];
        let (program, region) = compiler.place();
        let [entry, callback] = entries.map(|id| program.address(id));
        Compiled { entry, callback, region }
    }

    /// The region to register.
    pub(crate) fn region(&self) -> Region {
        self.region.clone()
    }
}
