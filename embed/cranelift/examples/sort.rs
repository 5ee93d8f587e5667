//! Managed code that calls C, and is called back by it: the C library's `qsort` sorts a table of
//! objects by a comparison in managed code, while a thread collects.
//!
//! `leaf` makes keys, `native` keeps the table and prints, `foreign` calls C, which calls back.

use stackmark::handle::Handle;
use stackmark::mark_sweep::{Descriptor, DescriptorId};
use stackmark_cranelift::{
    CompileError, Engine, FuncId, Function, INT, InstBuilder, IntCC, Module, Program, Settings,
    Value, types::I64,
};
use std::error::Error;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

unsafe extern "C" {
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn qsort(
        base: *mut c_void,
        count: usize,
        size: usize,
        compare: extern "C" fn(*const usize, *const usize) -> i32,
    );
}

// What native code must find: C is given no word of the embedder's.
static ENGINE: OnceLock<Engine> = OnceLock::new();
/// The program, and its comparison.
static LESS: OnceLock<(Arc<Program>, FuncId)> = OnceLock::new();
/// A root: the table of objects.
static TABLE: OnceLock<Handle> = OnceLock::new();
static COMPARISONS: AtomicUsize = AtomicUsize::new(0);

fn engine() -> &'static Engine {
    ENGINE.get().expect("set before managed code runs")
}

/// The comparison that C calls. The goroutine is in a foreign call here: it is called back, and its
/// stack may move.
extern "C" fn compare(a: *const usize, b: *const usize) -> i32 {
    let (program, less) = LESS.get().expect("set before managed code runs");
    COMPARISONS.fetch_add(1, Relaxed);
    // SAFETY: C gives the addresses of two numbers in the memory that it sorts.
    let (a, b) = unsafe { (*a, *b) };
    let is_less = |a, b| engine().call_in(program, *less, &[a, b]).expect("called back") as i32;
    is_less(b, a) - is_less(a, b)
}

/// A leaf: short, and it keeps nothing. A key that looks like chance.
unsafe extern "C-unwind" fn key(index: *mut c_void, count: usize) -> usize {
    (index as usize).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (4 * count)
}

/// A native function: keeps the table beyond this call. The goroutine counts as running, so the
/// reference that it has given is alive.
unsafe extern "C-unwind" fn keep(_goroutine: *mut c_void, table: usize) -> usize {
    TABLE.get_or_init(|| engine().collector().handles().create(table));
    0
}

/// A native function: the table, a reference.
unsafe extern "C-unwind" fn table(_goroutine: *mut c_void, _: usize) -> usize {
    TABLE.get().expect("kept").get()
}

/// A native function that prints a word.
unsafe extern "C-unwind" fn print(_goroutine: *mut c_void, word: usize) -> usize {
    println!("the smallest key is {word}");
    0
}

/// The address of a word of an array, or of C's memory.
fn element(f: &mut Function<'_>, array: Value, index: Value) -> Value {
    let offset = f.ins().ishl_imm_u(index, 3);
    f.ins().iadd(array, offset)
}

/// The key of the table's object at an index.
fn key_at(f: &mut Function<'_>, index: Value) -> Value {
    let table = f.native(table, &[]);
    let table = f.reference(table);
    let at = element(f, table, index);
    let object = f.load_reference(at, 0);
    f.load_plain(I64, object, 0)
}

/// `fill(count)`: makes the table, which is of `entries`, and its objects, each an `entry`.
fn fill(
    module: &mut Module,
    entry: DescriptorId,
    entries: DescriptorId,
) -> Result<FuncId, CompileError> {
    let fill = module.declare("fill", &[INT], &[])?;
    module.define(fill, |f| {
        let count = f.param(0);
        let bytes = f.ins().ishl_imm_u(count, 3);
        let array = f.allocate_bytes(entries, bytes);
        f.native(keep, &[array]);
        f.repeat(count, |f, index| {
            let key = f.leaf(key, index, count);
            let object = f.allocate(entry, 8);
            f.store_plain(key, object, 0);
            let at = element(f, array, index);
            f.reference(at);
            f.store_reference(object, at, 0);
            Ok(())
        })?;
        f.return_(&[])
    })?;
    Ok(fill)
}

/// `less(a, b)`: whether the object at `a` comes before the one at `b`. It leaves garbage behind,
/// so that collections have something to do.
fn less(module: &mut Module, entry: DescriptorId) -> Result<FuncId, CompileError> {
    let less = module.declare("less", &[INT, INT], &[INT])?;
    module.define(less, |f| {
        let [a, b] = f.params();
        let garbage = f.allocate(entry, 8);
        let first = key_at(f, a);
        f.store_plain(first, garbage, 0);
        let second = key_at(f, b);
        let first = f.load_plain(I64, garbage, 0);
        let is = f.ins().icmp(IntCC::UnsignedLessThan, first, second);
        let word = f.to_word(is);
        f.return_(&[word])
    })?;
    module.export(less)?;
    Ok(less)
}

/// `main(count)`: sorts. Prints the smallest key, returns how many objects are out of order.
fn sort(module: &mut Module, fill: FuncId, less: FuncId) -> Result<FuncId, CompileError> {
    let main = module.declare("main", &[INT], &[INT])?;
    module.define(main, |f| {
        let count = f.param(0);
        let count = f.ins().band_imm_u(count, 0xfff);
        let count = f.ins().bor_imm_u(count, 1);
        f.call(fill, &[count])?;
        // C's memory, which no collector knows: numbers of objects, not references.
        let function = f.int(calloc as *const () as i64);
        let (length, size) = (f.ins().iadd_imm_s(count, 1), f.int(8));
        let (order, _errno) = f.foreign(function, &[length, size]);
        f.repeat(count, |f, index| {
            let at = element(f, order, index);
            f.store_plain(index, at, 0);
            Ok(())
        })?;
        let function = f.int(qsort as *const () as i64);
        let compare = f.int(compare as *const () as i64);
        f.foreign(function, &[order, count, size, compare]);
        let (wrong, zero) = (f.variable(INT), f.int(0));
        f.def_var(wrong, zero);
        let last = f.ins().iadd_imm_s(count, -1);
        f.repeat(last, |f, index| {
            let at = element(f, order, index);
            let (this, next) = (f.load_plain(I64, at, 0), f.load_plain(I64, at, 8));
            let is_wrong = f.call(less, &[next, this])?[0];
            let sum = f.use_var(wrong);
            let sum = f.ins().iadd(sum, is_wrong);
            f.def_var(wrong, sum);
            Ok(())
        })?;
        let first = f.load_plain(I64, order, 0);
        let smallest = key_at(f, first);
        f.native(print, &[smallest]);
        let function = f.int(free as *const () as i64);
        f.foreign(function, &[order]);
        let wrong = f.use_var(wrong);
        f.return_(&[wrong])
    })?;
    module.export(main)?;
    Ok(main)
}

/// The whole program, which a test runs as well.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    ENGINE.set(Engine::new(Settings::default())?).expect("set once");
    let entry = engine().heap().register(Descriptor::pattern(1, [])?)?;
    let entries = engine().heap().register(Descriptor::references())?;
    let mut module = engine().module()?;
    let fill = fill(&mut module, entry, entries)?;
    let less = less(&mut module, entry)?;
    let main = sort(&mut module, fill, less)?;
    // SAFETY: the functions keep the contracts, whatever number `main` is given: it takes 12 bits
    // of it. `less` is called with indices alone.
    let program = unsafe { engine().finish(module) }?;
    LESS.set((program.clone(), less)).expect("set once");
    let done = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                engine().collector().collect();
            }
        });
        let wrong = engine().run(&program, main, 4_000);
        done.store(true, Relaxed);
        wrong
    })?;
    let (comparisons, cycles) =
        (COMPARISONS.load(Relaxed), engine().collector().statistics().cycles);
    println!("{wrong} objects are out of order after {comparisons} comparisons, {cycles} cycles");
    assert_eq!(wrong, 0);
    Ok(())
}
