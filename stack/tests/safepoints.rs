//! A region is registered without one of its safepoints: a scan of a stack that stands there is
//! refused. It would lose the roots of that frame.

use jit::{Embedder, Ignoring};
use stackmark_stack::unwind::{Code, WalkError};
use stackmark_stack::{Caller, Config, CycleDriver, Left, Machine, Runtime, ScanScope};
use std::ffi::c_void;
use std::sync::Arc;

unsafe extern "C-unwind" fn yields(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone, which owns nothing.
    unsafe { Caller::current().yield_now(0) }
}

/// The return address of the safepoint that is left out, and what a scan says of a goroutine that
/// stands at the bottom of a recursion.
fn scan_without(left_out: usize) -> Option<(usize, Option<WalkError>)> {
    let code = Arc::new(Code::new());
    let mut compiler = jit::Compiler::default();
    let rec = compiler.recursion(yields, 16, false);
    let entry = compiler.entry(rec);
    let (program, mut region) = compiler.place();
    if left_out >= region.safepoints.len() {
        return None;
    }
    let return_address = region.safepoints.remove(left_out).return_address;
    code.register(region).expect("a region");
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let mut cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
    let object = 5_u64;
    let mut argument = [3, &raw const object as u64, 0];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: compiled code; the argument outlives the goroutine.
    let goroutine =
        unsafe { runtime.spawn(program.address(entry), argument.as_mut_ptr() as usize) }
            .expect("memory");
    let Left::Yielded(goroutine) = machine.run(goroutine) else { panic!("it yields") };
    cycles.handshake();
    assert!(cycles.begin_scanning(1, ScanScope::Whole));
    let scanned = cycles.scan_goroutines(|| {}).and_then(|()| {
        while runtime.scan_frozen()? {}
        Ok(())
    });
    drop(goroutine);
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
