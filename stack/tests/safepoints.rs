//! A goroutine that has left its thread is scanned from where it goes on, whether native code or
//! its own has left. Where a region is registered without one of its safepoints, a scan of a stack
//! that stands there is refused. It would lose the roots of that frame.

use compiler::{Compiler, Embedder, Ignoring};
use parking_lot::Mutex;
use stackmark_stack::unwind::{Code, Region, WalkError};
use stackmark_stack::{
    Caller, Config, CycleDriver, Left, Machine, RootSink, Runtime, ScanError, ScanScope,
};
use std::ffi::c_void;
use std::sync::Arc;

#[derive(Debug, Default)]
struct Roots(Mutex<Vec<usize>>);

impl RootSink for Roots {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend(words);
    }
}

/// Runs the recursion with this entry, with `object` in each frame, until it yields. Returns what a
/// whole scan says.
fn scan_when_it_yields(
    region: Region,
    entry: usize,
    (depth, object): (usize, &usize),
    roots: Arc<dyn RootSink>,
) -> Result<(), ScanError> {
    let code = Arc::new(Code::new());
    code.register(region).expect("a region");
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let mut cycles = CycleDriver::new(&runtime, roots).expect("one collector");
    let mut argument = [depth, std::ptr::from_ref(object) as usize, 0];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: compiled code, which the caller keeps; the argument outlives the goroutine.
    let goroutine =
        unsafe { runtime.spawn(entry, argument.as_mut_ptr() as usize) }.expect("memory");
    let Left::Yielded(goroutine) = machine.run(goroutine) else { panic!("it yields") };
    cycles.handshake();
    assert!(cycles.begin_scanning(1, ScanScope::Whole));
    let scanned = cycles.scan_goroutines(|| {}).and_then(|()| {
        while runtime.scan_frozen()? {}
        Ok(())
    });
    drop(goroutine);
    scanned
}

unsafe extern "C-unwind" fn yields(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing.
    unsafe { Caller::current().yield_now(0) }
}

/// The return address of the safepoint that is left out, and what a scan says of a goroutine that
/// stands at the bottom of a recursion.
fn scan_without(left_out: usize) -> Option<(usize, Option<WalkError>)> {
    let mut compiler = Compiler::default();
    let rec = compiler.recursion(yields, 16, false);
    let entry = compiler.entry(rec);
    let (program, mut region) = compiler.place();
    if left_out >= region.safepoints.len() {
        return None;
    }
    let return_address = region.safepoints.remove(left_out).return_address;
    let scanned = scan_when_it_yields(region, program.address(entry), (3, &5), Arc::new(Ignoring));
    Some((return_address, scanned.err().map(|error| error.error)))
}

#[test]
fn a_scan_of_a_frame_at_no_safepoint_is_refused() {
    let mut refused = 0;
    for left_out in 0.. {
        let Some((return_address, error)) = scan_without(left_out) else { break };
        if let Some(error) = error {
            assert_eq!(error, WalkError::NoSafepoint { pc: return_address });
            refused += 1;
        }
    }
    // The call out at the bottom, the recursion's own, and the one of the goroutine's function.
    assert_eq!(refused, 3);
}

unsafe extern "C-unwind" fn nothing(_object: *mut c_void, _n: usize) -> usize {
    0
}

#[test]
fn a_goroutine_that_has_yielded_by_itself_is_scanned() {
    const DEPTH: usize = 20;
    let mut compiler = Compiler::default();
    let rec = compiler.recursion(nothing, 0, true);
    let entry = compiler.entry(rec);
    let (program, region) = compiler.place();
    let (object, roots) = (5, Arc::new(Roots::default()));
    let frames = (DEPTH, &object);
    scan_when_it_yields(region, program.address(entry), frames, Arc::clone(&roots) as _)
        .expect("a stack that can be walked");
    let found = roots.0.lock().iter().filter(|root| **root == &raw const object as usize).count();
    assert!(found > DEPTH, "{found}");
}
