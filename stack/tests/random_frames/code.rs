//! The managed code: one function for each layout of a frame, which does what a native function
//! tells it to.
//!
//! A function asks `fresh` for the words that it holds, then asks `step` for its next action, again
//! and again, and after each action shows everything that it holds to `check`. All values are live
//! at every call.

use compiler::{Compiler, FuncId, Function, INT, Program, REF, Start, Value};
use stackmark_stack::asm::layout::NativeFn;
use stackmark_stack::unwind::{Announce, Region};

/// A layout of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The function's name.
    name: &'static str,
    /// References held.
    pub(crate) references: usize,
    /// Words of an array in the frame, to which the frame has a pointer.
    array: usize,
    /// Plain words held in registers that callees keep. Without any, the function can yield.
    pub(crate) kept: usize,
}

const fn layout(name: &'static str, references: usize, array: usize, kept: usize) -> Layout {
    Layout { name, references, array, kept }
}

/// The layouts. The index is the function's number.
pub(crate) const LAYOUTS: [Layout; 8] = [
    layout("layout_0", 0, 1, 0),
    layout("layout_1", 1, 1, 4),
    layout("layout_2", 2, 4, 0),
    layout("layout_3", 3, 13, 1),
    layout("layout_4", 5, 1, 2),
    layout("layout_5", 8, 25, 0),
    layout("layout_6", 13, 2, 3),
    layout("layout_7", 4, 80, 0),
];

impl Layout {
    /// How many words it holds: the references, a word in the array, those in registers.
    pub(crate) fn held(&self) -> usize {
        self.references + 1 + self.kept
    }
}

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
    /// Yield, if the function can.
    pub(crate) const YIELD: usize = 4;
    /// Call the function of the layout `action - CALL`.
    pub(crate) const CALL: usize = 5;
}

/// The native functions behind the managed ones.
#[derive(Clone, Copy)]
pub(crate) struct Natives {
    /// `(_, layout)`: a frame begins.
    pub(crate) begin: NativeFn,
    /// `(layout, index)`: the word to hold.
    pub(crate) fresh: NativeFn,
    /// `(_, layout)`: the next action.
    pub(crate) step: NativeFn,
    /// `(word, index)`: what the frame holds there. The index after the last one is what a callee
    /// has returned.
    pub(crate) check: NativeFn,
    /// `(_, layout)`: what to return.
    pub(crate) leave: NativeFn,
}

/// The compiled functions.
pub(crate) struct Compiled {
    /// `entry(goroutine, layout)`, for a goroutine to begin with.
    pub(crate) entry: usize,
    /// `callback([goroutine])`, for native code to call: runs a function of the second layout.
    pub(crate) callback: usize,
    region: Region,
}

/// The function of one layout.
fn body(f: &mut Function, number: usize, functions: &[FuncId], natives: Natives) {
    let Layout { references, array, kept, .. } = LAYOUTS[number];
    let (words, last) = (array * size_of::<usize>(), array - 1);
    let array = f.slot(words as u32, &[]);
    let layout = f.int(number);
    f.leaf(natives.begin, layout, layout);
    let fresh = |f: &mut Function, index: usize| {
        let index = f.int(index);
        f.leaf(natives.fresh, layout, index)
    };
    let held: Vec<Value> = (0..references)
        .map(|index| {
            let (variable, word) = (f.variable(REF), fresh(f, index));
            f.set(variable, word);
            variable
        })
        .collect();
    let word = fresh(f, references);
    f.store(word, array, last);
    let kept: Vec<Value> = (0..kept)
        .map(|index| {
            let word = fresh(f, references + 1 + index);
            f.kept(index, word)
        })
        .collect();

    let (again, done) = (f.block(), f.block());
    f.jump(again);
    f.switch_to(again);
    let check = |f: &mut Function, word: Value, index: usize| {
        let index = f.int(index);
        f.leaf(natives.check, word, index);
    };
    for (index, word) in held.iter().enumerate() {
        check(f, *word, index);
    }
    let word = f.load(array, last);
    check(f, word, references);
    for (index, word) in kept.iter().enumerate() {
        check(f, *word, references + 1 + index);
    }
    let next = f.leaf(natives.step, layout, layout);

    let no = f.case(next, action::RETURN);
    f.jump(done);
    f.switch_to(no);
    let no = f.case(next, action::POLL);
    f.poll_always();
    f.jump(again);
    f.switch_to(no);
    let no = f.case(next, action::REPLACE);
    if let Some(variable) = held.first() {
        let word = fresh(f, 0);
        f.set(*variable, word);
    }
    f.jump(again);
    f.switch_to(no);
    if kept.is_empty() {
        let no = f.case(next, action::YIELD);
        f.yield_now();
        f.jump(again);
        f.switch_to(no);
    }
    for (callee, function) in functions.iter().enumerate() {
        let no = f.case(next, action::CALL + callee);
        let result = f.call(*function, &[]);
        check(f, result, LAYOUTS[number].held());
        f.jump(again);
        f.switch_to(no);
    }
    f.jump(again);
    f.switch_to(done);
    let result = f.leaf(natives.leave, layout, layout);
    f.return_(result);
}

impl Compiled {
    /// Compiles the functions of all layouts.
    pub(crate) fn new(natives: Natives) -> Compiled {
        let mut compiler = Compiler::default();
        let functions = LAYOUTS.map(|layout| compiler.declare(layout.name, &[]));
        for (number, function) in functions.iter().enumerate() {
            compiler.define(*function, Start::Managed, |f| body(f, number, &functions, natives));
        }
        let call = |callee| {
            move |f: &mut Function| {
                let result = f.call(callee, &[]);
                f.return_(result);
            }
        };
        let entry = compiler.function("entry", &[INT, INT], Start::Goroutine, call(functions[0]));
        let callback = compiler.function("callback", &[INT], Start::Callback, call(functions[1]));
        let (program, mut region): (Program, Region) = compiler.place();
        // A debugger's takes longer than all else of a short program. Exceptions need the other.
        region.announce = Announce { debugger: false, system_unwinder: true };
        let [entry, callback] = [entry, callback].map(|id| program.address(id));
        Compiled { entry, callback, region }
    }

    /// The region to register.
    pub(crate) fn region(&self) -> Region {
        self.region.clone()
    }
}
