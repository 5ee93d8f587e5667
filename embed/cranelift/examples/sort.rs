//! Managed code that calls C, and is called back by it: the C library's `qsort` sorts a table of
//! objects by a comparison in managed code, while a thread collects.
//!
//! `leaf` makes keys, `native` keeps the table and prints, `foreign` calls C, which calls back.

use stackmark::handle::Handle;
use stackmark::mark_sweep::{Descriptor, DescriptorId};
use stackmark::stack::{Caller, Goroutine, Host};
use stackmark_cranelift::{
    CompileError, Engine, FuncId, Function, INT, InstBuilder, IntCC, Module, Program, Settings,
    Value, types::I64,
};
use std::error::Error;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

type Built = Result<(), CompileError>;

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

/// What native code must find: the runtime's host holds it.
#[derive(Default)]
struct Sorter {
    program: OnceLock<(Arc<Program>, FuncId)>,
    /// A root: the table of objects.
    table: OnceLock<Handle>,
    comparisons: AtomicUsize,
}

impl Host for Sorter {
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> ! {
        eprintln!("goroutine {}: the stack exceeds {limit} bytes", goroutine.id());
        std::process::exit(2)
    }
}

/// C is given no word of the embedder's, so it finds the engine here.
static ENGINE: OnceLock<Engine> = OnceLock::new();

fn engine() -> (&'static Engine, &'static Sorter) {
    let engine = ENGINE.get().expect("set by main");
    (engine, engine.host().expect("our host"))
}

/// The comparison that C calls. The goroutine is in a foreign call here: it is called back, and its
/// stack may move.
extern "C" fn compare(a: *const usize, b: *const usize) -> i32 {
    let (engine, sorter) = engine();
    let (program, less) = sorter.program.get().expect("set by main");
    sorter.comparisons.fetch_add(1, Relaxed);
    // SAFETY: C gives the addresses of two numbers in the memory that it sorts.
    let (a, b) = unsafe { (*a, *b) };
    let is_less = |a, b| {
        let mut words = [a, b, 0];
        let call = |caller: Caller<'_>| {
            // SAFETY: the program is this engine's. Its arguments and result are plain.
            unsafe { program.call_back(caller, *less, &mut words) }
        };
        engine.runtime().call_in(call).expect("in a foreign call").expect("exported");
        words[2] != 0
    };
    i32::from(is_less(b, a)) - i32::from(is_less(a, b))
}

/// A leaf: short, and it keeps nothing. A key that looks like chance.
unsafe extern "C-unwind" fn key(index: *mut c_void, count: usize) -> usize {
    (index as usize).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (4 * count)
}

/// A native function: keeps the table beyond this call. The goroutine counts as running, so the
/// reference that it has given is alive.
unsafe extern "C-unwind" fn keep(_goroutine: *mut c_void, table: usize) -> usize {
    let (engine, sorter) = engine();
    sorter.table.get_or_init(|| engine.collector().handles().create(table));
    0
}

/// A native function: the table, a reference.
unsafe extern "C-unwind" fn table(_goroutine: *mut c_void, _: usize) -> usize {
    engine().1.table.get().expect("kept").get()
}

/// A native function that prints a word.
unsafe extern "C-unwind" fn print(_goroutine: *mut c_void, word: usize) -> usize {
    println!("the smallest key is {word}");
    0
}

/// The functions of the module, and the kinds of its objects.
struct Sort {
    module: Module,
    /// Objects of one word, the key; and of references.
    entry: DescriptorId,
    entries: DescriptorId,
}

/// A loop over the numbers below `count`.
fn each(
    f: &mut Function<'_>,
    count: Value,
    body: impl FnOnce(&mut Function<'_>, Value) -> Built,
) -> Built {
    let index = f.variable(INT);
    let zero = f.int(0);
    f.def_var(index, zero);
    let [head, inside, done] = [(); 3].map(|()| f.create_block());
    f.ins().jump(head, &[]);
    f.switch_to_block(head);
    f.poll();
    let at = f.use_var(index);
    let more = f.ins().icmp(IntCC::UnsignedLessThan, at, count);
    f.ins().brif(more, inside, &[], done, &[]);
    f.switch_to_block(inside);
    body(f, at)?;
    let at = f.use_var(index);
    let next = f.ins().iadd_imm_s(at, 1);
    f.def_var(index, next);
    f.ins().jump(head, &[]);
    f.switch_to_block(done);
    Ok(())
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

impl Sort {
    /// `fill(count)`: makes the table and its objects.
    fn fill(&mut self) -> Result<FuncId, CompileError> {
        let (entry, entries) = (self.entry, self.entries);
        let fill = self.module.declare("fill", &[INT], &[])?;
        self.module.define(fill, |f| {
            let count = f.param(0);
            let bytes = f.ins().ishl_imm_u(count, 3);
            let array = f.allocate_bytes(entries, bytes);
            f.native(keep, &[array]);
            each(f, count, |f, index| {
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

    /// `less(a, b)`: whether the object at `a` comes before the one at `b`. It leaves garbage
    /// behind, so that collections have something to do.
    fn less(&mut self) -> Result<FuncId, CompileError> {
        let entry = self.entry;
        let less = self.module.declare("less", &[INT, INT], &[INT])?;
        self.module.define(less, |f| {
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
        self.module.export(less)?;
        Ok(less)
    }

    /// `main(count)`: sorts. Prints the smallest key, returns how many objects are out of order.
    fn main(&mut self) -> Result<(FuncId, FuncId), CompileError> {
        let (fill, less) = (self.fill()?, self.less()?);
        let main = self.module.declare("main", &[INT], &[INT])?;
        self.module.define(main, |f| {
            let count = f.param(0);
            let count = f.ins().band_imm_u(count, 0xfff);
            let count = f.ins().bor_imm_u(count, 1);
            f.call(fill, &[count])?;
            // C's memory, which no collector knows: numbers of objects, not references.
            let function = f.int(calloc as *const () as i64);
            let (length, size) = (f.ins().iadd_imm_s(count, 1), f.int(8));
            let (order, _errno) = f.foreign(function, &[length, size]);
            each(f, count, |f, index| {
                let at = element(f, order, index);
                f.store_plain(index, at, 0);
                Ok(())
            })?;
            let (qsort, compare) = (qsort as *const () as i64, compare as *const () as i64);
            let (qsort, compare) = (f.int(qsort), f.int(compare));
            f.foreign(qsort, &[order, count, size, compare]);
            let wrong = f.variable(INT);
            let zero = f.int(0);
            f.def_var(wrong, zero);
            let last = f.ins().iadd_imm_s(count, -1);
            each(f, last, |f, index| {
                let at = element(f, order, index);
                let (this, next) = (f.load_plain(I64, at, 0), f.load_plain(I64, at, 8));
                let is_wrong = f.call(less, &[next, this])?[0];
                let so_far = f.use_var(wrong);
                let sum = f.ins().iadd(so_far, is_wrong);
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
        self.module.export(main)?;
        Ok((main, less))
    }
}

/// The whole program, which a test runs as well.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let count = 4_000;
    let engine = Engine::with_host(Settings::default(), Box::<Sorter>::default())?;
    let entry = engine.heap().register(Descriptor::pattern(1, [])?)?;
    let entries = engine.heap().register(Descriptor::references())?;
    let mut sort = Sort { module: engine.module()?, entry, entries };
    let (main, less) = sort.main()?;
    // SAFETY: the functions keep the contracts, whatever number `main` is given: it takes 12 bits
    // of it. `less` is called with indices alone.
    let program = unsafe { engine.finish(sort.module) }?;
    let engine = ENGINE.get_or_init(|| engine);
    let sorter: &Sorter = engine.host().expect("our host");
    sorter.program.set((program.clone(), less)).expect("set once");
    let done = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                engine.collector().collect();
            }
        });
        let outcome = engine.run(&program, main, count);
        done.store(true, Relaxed);
        outcome
    })?;
    let (comparisons, cycles) =
        (sorter.comparisons.load(Relaxed), engine.collector().statistics().cycles);
    println!("{outcome} objects are out of order after {comparisons} comparisons, {cycles} cycles");
    assert_eq!(outcome, 0);
    Ok(())
}

#[allow(dead_code, reason = "a test has this file as a module")]
fn main() -> Result<(), Box<dyn Error>> {
    run()
}
