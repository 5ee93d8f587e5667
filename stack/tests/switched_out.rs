//! A goroutine that has left its thread by itself, without a call of the runtime, is scanned as any
//! other: each frame is found from where it goes on.

use jit::Embedder;
use parking_lot::Mutex;
use stackmark_stack::unwind::Code;
use stackmark_stack::{Config, CycleDriver, Left, Machine, RootSink, Runtime, ScanScope};
use std::ffi::c_void;
use std::sync::Arc;

#[derive(Debug, Default)]
struct Roots(Mutex<Vec<usize>>);

impl RootSink for Roots {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend(words);
    }
}

unsafe extern "C-unwind" fn nothing(_object: *mut c_void, _n: usize) -> usize {
    0
}

#[test]
fn a_goroutine_that_has_yielded_by_itself_is_scanned() {
    const DEPTH: u64 = 20;
    let code = Arc::new(Code::new());
    let mut compiler = jit::Compiler::default();
    let rec = compiler.recursion(nothing, 0, true);
    let entry = compiler.entry(rec);
    let (program, region) = compiler.place();
    code.register(region).expect("a region");
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let roots = Arc::new(Roots::default());
    let mut cycles = CycleDriver::new(&runtime, Arc::clone(&roots) as _).expect("one collector");
    let object = 5_u64;
    let mut argument = [DEPTH, &raw const object as u64, 0];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: compiled code; the argument outlives the goroutine.
    let goroutine =
        unsafe { runtime.spawn(program.address(entry), argument.as_mut_ptr() as usize) }
            .expect("memory");
    let Left::Yielded(goroutine) = machine.run(goroutine) else { panic!("it yields") };
    cycles.handshake();
    assert!(cycles.begin_scanning(1, ScanScope::Whole));
    cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
    while runtime.scan_frozen().expect("a stack that can be walked") {}
    let found = roots.0.lock().iter().filter(|root| **root == &raw const object as usize).count();
    assert!(found as u64 > DEPTH, "{found}");
    drop(goroutine);
}
