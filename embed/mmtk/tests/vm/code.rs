//! Managed code: recursion whose every frame checks its object and its parent's slot on return.

use super::binding::{GLOBALS, TestVm, header};
use jit::stackmark_cranelift::{FuncId, INT, InstBuilder, IntCC, REF, Start, Value, types::I64};
use jit::{Builder, Compiled, Compiler};
use mmtk::AllocationSemantics;
use mmtk::memory_manager as mm;
use mmtk::plan::BarrierSelector;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::Slot;
use stackmark_mmtk::stack::Caller;
use stackmark_mmtk::stack::unwind::Code;
use stackmark_mmtk::{FromStack, StackHost, StackSlot, machine};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An object's bytes, and where its references and its number are: a word for MMTk and the size,
/// two references, a number.
const BYTES: usize = 32;
const REFERENCES: usize = 2;
const PARENT: i32 = 8;
const OTHER: i32 = 16;
const NUMBER: i32 = 24;

/// How much a program does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Objects that are made at the bottom of the recursion.
    pub(crate) at_bottom: usize,
    /// Objects that are made on the way back, in every so many frames.
    pub(crate) on_return: usize,
    pub(crate) every: usize,
    /// How deep the recursion beside it is, which comes and goes.
    pub(crate) wiggle: usize,
}

/// How often a frame has found something wrong.
pub(crate) static WRONG: AtomicUsize = AtomicUsize::new(0);

fn object(address: usize) -> ObjectReference {
    // SAFETY: an address is only looked at.
    ObjectReference::from_raw_address(unsafe { Address::from_usize(address) }).expect("an object")
}

// ANCHOR: allocate
/// `(n, _)`: a new object with number `n`.
unsafe extern "C-unwind" fn allocate(n: *mut c_void, _: usize) -> usize {
    // SAFETY: used within this function. The machine is attached, and MMTk alone uses the mutator
    // while it allocates.
    let caller = unsafe { Caller::current() };
    // SAFETY: as above.
    let mutator = unsafe { machine::mutator::<TestVm>(&caller) };
    let at = mm::alloc(mutator, BYTES, 8, 0, AllocationSemantics::Default);
    assert!(!at.is_zero(), "out of memory");
    // SAFETY: memory for an object.
    unsafe {
        at.store(header(BYTES, REFERENCES));
        (at + 8usize).store([0usize; 2]);
        (at + 24usize).store(n as usize);
    }
    mm::post_alloc(mutator, object(at.as_usize()), BYTES, AllocationSemantics::Default);
    at.as_usize()
}
// ANCHOR_END: allocate

/// Stores `value` as the second reference of the object in global 0, and its number there.
unsafe extern "C-unwind" fn store_old(value: *mut c_void, number: usize) -> usize {
    // SAFETY: as in `allocate`.
    let caller = unsafe { Caller::current() };
    // SAFETY: as above.
    let mutator = unsafe { machine::mutator::<TestVm>(&caller) };
    let old = object(GLOBALS[0].load(Relaxed));
    let value = object(value as usize);
    // SAFETY: a reference of the object.
    let slot = unsafe { StackSlot::plain(old.to_raw_address().as_usize() + OTHER as usize) };
    mm::object_reference_write_pre(mutator, old, slot, Some(value));
    slot.store(value);
    // SAFETY: the object's number.
    unsafe { (old.to_raw_address() + NUMBER as usize).store(number) };
    let plan = TestVm::stacks().mmtk().get_plan();
    if plan.constraints().barrier != BarrierSelector::SATBBarrier {
        mm::object_reference_write_post(mutator, old, slot, Some(value));
    }
    0
}

unsafe extern "C-unwind" fn set_old(value: *mut c_void, _: usize) -> usize {
    // Several goroutines have one old object, the first one's.
    let _ = GLOBALS[0].compare_exchange(0, value as usize, Relaxed, Relaxed);
    0
}

pub(crate) unsafe extern "C-unwind" fn wrong(at: *mut c_void, number: usize) -> usize {
    if WRONG.fetch_add(1, Relaxed) < 5 {
        // SAFETY: an object, or what has been one.
        let words = unsafe { *(at as *const [usize; 4]) };
        eprintln!("wrong: {at:p} with number {number:#x} has {words:x?}");
    }
    0
}

/// The pauses that there were when the bottom of a recursion was reached, and left.
pub(crate) static BOTTOM: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

unsafe extern "C-unwind" fn at_bottom(end: *mut c_void, _: usize) -> usize {
    BOTTOM[end as usize].store(TestVm::stacks().pauses() as usize, Relaxed);
    0
}

/// Runs `then` where a condition holds.
pub(crate) fn when(f: &mut Builder<'_>, condition: Value, then: impl FnOnce(&mut Builder<'_>)) {
    let (yes, on) = (f.create_block(), f.create_block());
    f.ins().brif(condition, yes, &[], on, &[]);
    f.switch_to_block(yes);
    then(f);
    f.ins().jump(on, &[]);
    f.switch_to_block(on);
}

/// A new object that refers to `parent`. It is young, so the store needs no barrier.
pub(crate) fn new_object(f: &mut Builder<'_>, number: Value, parent: Value) -> Value {
    let zero = f.int(0);
    let made = f.leaf(allocate, number, zero);
    let made = f.reference(made);
    f.store_unreported(REF, parent, made, PARENT);
    made
}

/// Complains unless an object has this number and this parent.
pub(crate) fn check(f: &mut Builder<'_>, made: Value, number: Value, parent: Value) {
    let (has, refers) = (f.load_plain(I64, made, NUMBER), f.load_plain(I64, made, PARENT));
    let (a, b) = (f.ins().bxor(has, number), f.ins().bxor(refers, parent));
    let differs = f.ins().bor(a, b);
    when(f, differs, |f| {
        f.leaf(wrong, made, number);
    });
}

/// `down(n, parent)` recurses with an object in each frame.
fn down(compiler: &mut Compiler) -> FuncId {
    let down = compiler.declare("down", &[INT, REF]);
    compiler.define(down, |f, module| {
        f.enter(Start::Managed);
        let [n, parent] = f.params();
        let made = new_object(f, n, parent);
        when(f, n, |f| {
            let less = f.ins().iadd_imm_s(n, -1);
            jit::call(f, module, down, &[less, made]);
        });
        check(f, made, n, parent);
        f.return_(&[n]).expect("one result");
    });
    down
}

/// `work(n, object)` makes objects in chains of 64, stores each 256th in an old object, and calls
/// `down` at each 1024th.
fn work(compiler: &mut Compiler, down: FuncId, wiggle: usize) -> FuncId {
    compiler.function("work", &[INT, REF], |f, module| {
        f.enter(Start::Managed);
        let [n, object] = f.params();
        let chain = f.variable(REF);
        f.def_var(chain, object);
        f.repeat(n, |f, index| {
            let last = f.use_var(chain);
            let made = new_object(f, index, last);
            let in_chain = f.ins().band_imm_s(index, 63);
            let next = f.ins().select(in_chain, made, object);
            f.def_var(chain, next);
            let in_old = f.ins().band_imm_s(index, 255);
            let is_old = f.ins().icmp_imm_s(IntCC::Equal, in_old, 0);
            when(f, is_old, |f| {
                f.leaf(store_old, made, index);
            });
            let deep = f.ins().band_imm_s(index, 1023);
            let is_deep = f.ins().icmp_imm_s(IntCC::Equal, deep, 0);
            when(f, is_deep, |f| {
                let depth = f.int(wiggle as i64);
                jit::call(f, module, down, &[depth, made]);
            });
            Ok(())
        })
        .expect("a loop");
        f.return_(&[n]).expect("one result");
    })
}

/// `rec(n, parent)` recurses with an object in each frame, and returns the sum of their numbers.
fn rec(compiler: &mut Compiler, work: FuncId, load: Work) -> FuncId {
    let rec = compiler.declare("rec", &[INT, REF]);
    compiler.define(rec, |f, module| {
        f.enter(Start::Managed);
        let [n, parent] = f.params();
        let made = new_object(f, n, parent);
        let (last, more) = (f.create_block(), f.create_block());
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(last);
        let [count, zero, one] = [load.at_bottom, 0, 1].map(|n| f.int(n as i64));
        f.leaf(at_bottom, zero, zero);
        jit::call(f, module, work, &[count, made]);
        f.leaf(at_bottom, one, zero);
        check(f, made, n, parent);
        f.return_(&[n]).expect("one result");
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        let sum = jit::call(f, module, rec, &[less, made]);
        let part = f.ins().band_imm_s(n, load.every as i64 - 1);
        let works = f.ins().icmp_imm_s(IntCC::Equal, part, 0);
        when(f, works, |f| {
            let count = f.int(load.on_return as i64);
            jit::call(f, module, work, &[count, made]);
        });
        check(f, made, n, parent);
        let own = f.load_plain(I64, made, NUMBER);
        let sum = f.ins().iadd(sum, own);
        f.return_(&[sum]).expect("one result");
    });
    rec
}

/// Makes the object that others are stored in.
pub(crate) fn make_old(f: &mut Builder<'_>) {
    let zero = f.int(0);
    let old = new_object(f, zero, zero);
    f.leaf(set_old, old, zero);
}

/// `work` and what it calls.
pub(crate) fn worker(compiler: &mut Compiler, wiggle: usize) -> FuncId {
    let down = down(compiler);
    work(compiler, down, wiggle)
}

/// `main(goroutine, depth)` returns the sum of the numbers up to `depth`.
pub(crate) fn compile(code: &Code, load: Work) -> Compiled {
    assert!(load.every.is_power_of_two());
    let mut compiler = Compiler::default();
    let work = worker(&mut compiler, load.wiggle);
    let rec = rec(&mut compiler, work, load);
    let main = compiler.function("main", &[INT, INT], |f, module| {
        f.enter(Start::Goroutine);
        let depth = f.param(1);
        let zero = f.int(0);
        make_old(f);
        let sum = jit::call(f, module, rec, &[depth, zero]);
        f.return_(&[sum]).expect("one result");
    });
    compiler.finish(main, code)
}
