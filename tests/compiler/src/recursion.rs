//! The functions that most tests run: a recursion, what it is entered by, and what guards it.

use stackmark_stack::asm::layout::NativeFn;
use stackmark_stack::unwind::Code;

use crate::function::{Function, Start};
use crate::ir::{FuncId, INT, Kind, REF, Value};
use crate::module::{Compiled, Compiler};

/// Words of an object that `guarded` reads, behind the first one.
pub const KEPT: usize = 4;

/// What `rec(n, object)` returns, where the first word of the object is `value` and the native
/// function at the bottom has returned `bottom`. The sum wraps, as managed code's does.
pub fn rec_result(n: usize, value: usize, bottom: usize) -> usize {
    let sum = n as u64 * (n as u64 + 1) / 2;
    (sum as usize).wrapping_add(value * n).wrapping_add(bottom)
}

/// What `guarded` returns when its call returned `result`, with these words of the object.
pub fn guarded_result(kept: [usize; KEPT], result: usize) -> usize {
    kept.iter().sum::<usize>() + result
}

/// What `guarded` returns when its landing pad got these values.
pub fn landed_result(kept: [usize; KEPT], values: [usize; 2]) -> usize {
    guarded_result(kept, values[0] * 1000 + values[1])
}

impl Compiler {
    /// Defines `entry(goroutine, [n, object, result])`, which calls `callee(n, object)`.
    pub fn entry(&mut self, callee: FuncId) -> FuncId {
        self.named_entry("entry", REF, callee)
    }

    /// The same under another name, whose argument is a root or is none.
    pub fn named_entry(&mut self, name: &'static str, argument: Kind, callee: FuncId) -> FuncId {
        self.function(name, &[INT, argument], Start::Goroutine, |f| {
            f.poll();
            let argument = f.param(1);
            let n = f.load(argument, 0);
            let object = f.load_reference(argument, 1);
            let result = f.call(callee, &[n, object]);
            f.store(result, argument, 2);
            f.return_(result);
        })
    }

    /// Defines a function for callbacks, which calls `callee(n, object)`. Its argument, outside of
    /// the goroutine's stack, points to `[goroutine, n, object, result]`.
    pub fn back(&mut self, name: &'static str, callee: FuncId) -> FuncId {
        self.function(name, &[INT], Start::Callback, |f| {
            let argument = f.param(0);
            let n = f.load(argument, 1);
            let object = f.load_reference(argument, 2);
            let result = f.call(callee, &[n, object]);
            f.store(result, argument, 3);
            f.return_(result);
        })
    }

    /// Defines `rec(n, object)`, which recurses `n` deep with `object` in every frame, calls
    /// `bottom(object, 0)` there, and returns the sum of what that returned and what it reads on
    /// the way back, through `object` and in its frames: [`rec_result`]. With `pad`, each frame has
    /// so many bytes more. With `yields`, the goroutine yields before the call, and after it.
    pub fn recursion(&mut self, bottom: NativeFn, pad: u32, yields: bool) -> FuncId {
        let rec = self.declare("rec", &[INT, REF]);
        self.define(rec, Start::Managed, |f| {
            let [n, object] = f.params();
            // An address in the own frame, live across the call: a move rewrites it.
            let own = f.slot(size_of::<usize>() as u32 + pad, &[]);
            f.store(n, own, 0);
            let (last, more) = (f.block(), f.block());
            f.branch_if(n, more, last);
            f.switch_to(last);
            if yields {
                f.yield_now();
            }
            let result = f.leaf(bottom, object, n);
            if yields {
                f.yield_now();
            }
            f.return_(result);
            f.switch_to(more);
            let one = f.int(1);
            let less = f.subtract(n, one);
            let sum = f.call(rec, &[less, object]);
            let read = f.load(object, 0);
            let sum = f.add(sum, read);
            let kept = f.load(own, 0);
            let sum = f.add(sum, kept);
            f.return_(sum);
        });
        rec
    }

    /// Defines `guarded(n, object)`: calls `callee(n, object)` with the [`KEPT`] words of the
    /// object behind the first in callee-saved registers, as far as there are any, and has a
    /// landing pad. Returns the callee's result and those words: [`guarded_result`]. The landing
    /// pad, instead of that result, 1000 times the first of its values and the second:
    /// [`landed_result`].
    pub fn guarded(&mut self, callee: FuncId) -> FuncId {
        self.function("guarded", &[INT, REF], Start::Managed, |f| {
            let [n, object] = f.params();
            let kept: Vec<Value> = (0..KEPT)
                .map(|i| {
                    let word = f.load(object, 1 + i);
                    f.kept(i, word)
                })
                .collect();
            let sum = |f: &mut Function, first| kept.iter().fold(first, |sum, k| f.add(sum, *k));
            let (result, landing, [first, second]) = f.try_call(callee, &[n, object]);
            let result = sum(f, result);
            f.return_(result);
            f.switch_to(landing);
            let first = f.multiply(first, 1000);
            let result = f.add(first, second);
            let result = sum(f, result);
            f.return_(result);
        })
    }
}

/// Compiles and registers `rec`, its [entry](Compiler::entry) and a [function](Compiler::back)
/// `back`. With `pad`, each frame has so many bytes more.
pub fn compile(code: &Code, bottom: NativeFn, pad: u32) -> Compiled {
    compile_by(Compiler::default(), code, bottom, pad)
}

/// As [`compile`]; the goroutine yields before it calls out at the bottom, and after that.
pub fn compile_yielding(code: &Code, bottom: NativeFn) -> Compiled {
    compile_recursion(Compiler::default(), code, bottom, 0, true)
}

/// As [`compile`], by this compiler.
pub fn compile_by(compiler: Compiler, code: &Code, bottom: NativeFn, pad: u32) -> Compiled {
    compile_recursion(compiler, code, bottom, pad, false)
}

fn compile_recursion(
    mut compiler: Compiler,
    code: &Code,
    bottom: NativeFn,
    pad: u32,
    yields: bool,
) -> Compiled {
    let rec = compiler.recursion(bottom, pad, yields);
    let entry = compiler.entry(rec);
    compiler.back("back", rec);
    compiler.finish(entry, code)
}
