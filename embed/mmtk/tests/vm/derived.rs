//! Managed code whose frames hold pointers derived from references.

use super::code::{self, Work};
use super::{Run, Shown};
use jit::Compiler;
use jit::stackmark_cranelift::{INT, InstBuilder, Start, types::I64};
use stackmark_mmtk::stack::unwind::stack_map::{Location, Root, StackMap};
use stackmark_mmtk::stack::unwind::{Code, Region};

/// Runs a program whose frames hold derived pointers, in pairs with their references.
pub(crate) fn run(run: &Run) -> Shown {
    let (runtime, code, threads) = super::start(run);
    let entry = compile_derived(&code, run.work);
    super::run_goroutines(&runtime, entry, run.depth, run.goroutines);
    threads.stop();
    super::shown()
}

/// `pairs(n)` recurses with an object in each frame, and two pointers into it, and checks all three
/// on its way back. Cranelift's maps list the three words alike; a front end that knows better says
/// which is derived from which, as this does.
fn compile_derived(registered: &Code, load: Work) -> usize {
    let mut compiler = Compiler::default();
    let work = code::worker(&mut compiler, load.wiggle);
    let pairs = compiler.declare("pairs", &[INT]);
    compiler.define(pairs, |f, module| {
        f.enter(Start::Managed);
        let n = f.param(0);
        let zero = f.int(0);
        let made = code::new_object(f, n, zero);
        let (_, slot) = f.slot(24, &[true; 3]).expect("a slot");
        for offset in [0, 8, 16] {
            let derived = f.ins().iadd_imm_s(made, offset);
            f.store_plain(derived, slot, offset as i32);
        }
        let (last, more, back) = (f.create_block(), f.create_block(), f.create_block());
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        jit::call(f, module, pairs, &[less]);
        f.ins().jump(back, &[]);
        f.switch_to_block(last);
        let count = f.int(load.at_bottom as i64);
        let object = f.load_reference(slot, 0);
        jit::call(f, module, work, &[count, object]);
        f.ins().jump(back, &[]);
        f.switch_to_block(back);
        let object = f.load_reference(slot, 0);
        for offset in [8, 16] {
            // As from a plain word: what it points to is looked at without a call in between.
            let derived = f.load_plain(I64, slot, offset);
            let distance = f.ins().isub(derived, object);
            let distance = f.ins().iadd_imm_s(distance, -i64::from(offset));
            code::when(f, distance, |f| {
                f.leaf(code::wrong, object, n);
            });
        }
        code::check(f, object, n, zero);
        f.return_(&[n]).expect("one result");
    });
    let main = compiler.function("main", &[INT, INT], |f, module| {
        f.enter(Start::Goroutine);
        let depth = f.param(1);
        code::make_old(f);
        jit::call(f, module, pairs, &[depth]);
        // The sum that the other program returns.
        let next = f.ins().iadd_imm_s(depth, 1);
        let product = f.ins().imul(depth, next);
        let sum = f.ins().sshr_imm_s(product, 1);
        f.return_(&[sum]).expect("one result");
    });
    let (program, mut region) = compiler.place();
    let (pairs, main) = (program.address(pairs), program.address(main));
    pair_up(&mut region, pairs);
    registered.register(region).expect("correct maps");
    // The code stays.
    std::mem::forget(program);
    main
}

/// Says of the function's slots of three words that two are derived from the first.
fn pair_up(region: &mut Region, function: usize) {
    let len = region.functions.iter().find(|f| f.start == function).expect("the function").len;
    let (mut paired, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut region.safepoints).into_iter().partition(|safepoint| {
            (function..function + len).contains(&safepoint.return_address)
                && safepoint.slots.len() >= 3
        });
    assert!(!paired.is_empty(), "no call has the three words");
    region.safepoints = kept;
    region.stack_maps.extend(paired.drain(..).map(|safepoint| {
        let slots = &safepoint.slots;
        // The slot was made first, so it lies lowest; what Cranelift spills comes behind it.
        let base = slots[0];
        assert_eq!(slots[..3], [base, base + 8, base + 16], "not the words of one slot");
        let at = |offset: u32| Location::Stack(offset as i32);
        let root = |slot: &u32| match slot.wrapping_sub(base) {
            8 | 16 => Root { base: at(base), derived: at(*slot) },
            _ => Root::plain(at(*slot)),
        };
        StackMap {
            return_address: safepoint.return_address,
            cfa_offset: Some(safepoint.cfa_offset),
            roots: slots.iter().map(root).collect(),
        }
    }));
}
