//! Nanoseconds of a foreign call, a callback, a goroutine switch and a first call on a new thread,
//! against a plain call, corosensei and, where it is found, real Go. The same on a thread's own
//! stack, with what a return through a barrier takes there.
//!
//! `cargo bench -p minigo --bench calls [-- --quick]`. Go comes from PyPI; a C compiler is needed
//! with it. Each time is the best of several rounds, the rounds of one program interleaved. Ends
//! with lines `figure NAME VALUE UNIT`.

#[path = "../../../peers/src/go.rs"]
#[allow(dead_code, unused_imports)]
mod go;
mod native;
mod peers;

use jit::Embedder;
use jit::stackmark_cranelift::{INT, InstBuilder, IntCC, Start, Value, types::I64};
use stackmark_stack::asm::layout::{GoroutineHeader, MachineHeader};
use stackmark_stack::asm::{self, ManagedFn};
use stackmark_stack::scheduler::Scheduler;
use stackmark_stack::unwind::Code;
use stackmark_stack::{Caller, Config, Left, Machine, Runtime};
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
static LEAF: AtomicUsize = AtomicUsize::new(0);

#[inline(never)]
extern "C-unwind" fn plain(x: usize) -> usize {
    black_box(x) + 1
}

/// A C function as a foreign call.
unsafe extern "C-unwind" fn foreign(_a: *mut c_void, x: usize) -> usize {
    // SAFETY: used within this function alone.
    unsafe { Caller::current() }.foreign(|| plain(x))
}

/// A C function as a leaf call: no change of status.
unsafe extern "C-unwind" fn leaf_call(_a: *mut c_void, x: usize) -> usize {
    plain(x)
}

/// What C calls to call managed code.
extern "C-unwind" fn exported(x: usize) -> usize {
    let runtime = RUNTIME.get().expect("set before");
    // SAFETY: LEAF is managed code of this type.
    let called = runtime.call_in(|caller| unsafe {
        caller.callback(std::mem::transmute::<usize, ManagedFn>(LEAF.load(Relaxed)), x)
    });
    called.expect("a thread that may call in").expect("in a foreign call")
}

/// What the callbacks of the last foreign call took, in nanoseconds.
static CALLBACKS: AtomicU64 = AtomicU64::new(0);

/// Calls back `n` times from one foreign call, the first that managed code makes.
unsafe extern "C-unwind" fn callbacks(n: *mut c_void, i: usize) -> usize {
    if i != 0 {
        return 0;
    }
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    caller.foreign(|| {
        let begin = Instant::now();
        let sum = (0..n as usize).fold(0, |sum: usize, i| sum.wrapping_add(exported(i)));
        CALLBACKS.store(begin.elapsed().as_nanos() as u64, Relaxed);
        sum
    })
}

/// The entry block of a function without a check of the stack, and its parameters.
fn parameters(f: &mut jit::Builder<'_>) -> Vec<Value> {
    let entry = f.create_block();
    f.append_block_params_for_function_params(entry);
    f.switch_to_block(entry);
    f.block_params(entry).to_vec()
}

/// Managed code: `entry(goroutine, [n, f])` calls `call_system(f, n, i)` for i in 0..n;
/// `switches(goroutine, x)` calls `x = switch_out(x)` without end, as corosensei's peer does;
/// `yields(goroutine, n)` yields n times; `leaf(x)` is called back.
fn compile(code: &Code) -> jit::Compiled {
    let mut compiler = jit::Compiler::default();
    compiler.function("leaf", &[INT], |f, _| {
        let x = parameters(f)[0];
        let result = f.ins().iadd_imm_s(x, 1);
        f.ins().return_(&[result]);
    });
    compiler.function("switches", &[INT, INT], |f, _| {
        f.enter(Start::Goroutine);
        let head = f.create_block();
        let x = f.append_block_param(head, I64);
        let first = f.param(1);
        f.ins().jump(head, &[first.into()]);
        f.switch_to_block(head);
        let next = f.switch_out(x);
        f.ins().jump(head, &[next.into()]);
    });
    compiler.function("yields", &[INT, INT], |f, _| {
        f.enter(Start::Goroutine);
        let (head, body, end) = (f.create_block(), f.create_block(), f.create_block());
        let i = f.append_block_param(head, I64);
        let n = f.param(1);
        f.ins().jump(head, &[n.into()]);
        f.switch_to_block(head);
        f.ins().brif(i, body, &[], end, &[]);
        f.switch_to_block(body);
        f.yield_now();
        let next = f.ins().iadd_imm_s(i, -1);
        f.ins().jump(head, &[next.into()]);
        f.switch_to_block(end);
        f.ins().return_(&[i]);
    });
    let entry = compiler.function("entry", &[INT, INT], |f, _| {
        f.enter(Start::Goroutine);
        let argument = f.param(1);
        let n = f.load_plain(I64, argument, 0);
        let called = f.load_plain(I64, argument, 8);
        let (head, body, end) = (f.create_block(), f.create_block(), f.create_block());
        let i = f.append_block_param(head, I64);
        let zero = f.int(0);
        f.ins().jump(head, &[zero.into()]);
        f.switch_to_block(head);
        let more = f.ins().icmp(IntCC::UnsignedLessThan, i, n);
        f.ins().brif(more, body, &[], end, &[]);
        f.switch_to_block(body);
        f.leaf_at(called, n, i);
        let next = f.ins().iadd_imm_s(i, 1);
        f.ins().jump(head, &[next.into()]);
        f.switch_to_block(end);
        f.ins().return_(&[i]);
    });
    compiler.finish(entry, code)
}

/// What is measured, in nanoseconds a step.
#[derive(Clone, Copy, Debug)]
struct Times {
    plain: f64,
    leaf: f64,
    foreign: f64,
    callback: f64,
    switch: f64,
    gosched: f64,
    corosensei: f64,
    first_call: f64,
    second_call: f64,
}

fn nanos(steps: usize, f: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    f();
    begin.elapsed().as_nanos() as f64 / steps as f64
}

struct Bench {
    runtime: Arc<Runtime>,
    compiled: jit::Compiled,
}

impl Bench {
    /// `n` calls of `f` from managed code.
    fn calls(&self, n: usize, f: asm::layout::NativeFn) -> f64 {
        let machine = Machine::attach(&self.runtime).expect("a thread that is not attached");
        let argument = [n, f as usize];
        // SAFETY: compiled code that keeps the contracts; its argument outlives it.
        let goroutine =
            unsafe { self.runtime.spawn(self.compiled.entry, argument.as_ptr() as usize) }
                .expect("memory");
        nanos(n, || assert!(matches!(machine.run(goroutine), Left::Exited)))
    }

    /// `n` callbacks from one call.
    fn callbacks(&self, n: usize) -> f64 {
        self.calls(n, callbacks);
        CALLBACKS.load(Relaxed) as f64 / n as f64
    }

    /// Switches from and to a goroutine by the assembly alone, with a word each way.
    fn switches(&self, n: usize) -> f64 {
        let mut stack = vec![0u128; 1024];
        let (mut machine, mut goroutine) = (MachineHeader::new(), GoroutineHeader::new());
        goroutine.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
        goroutine.entry.store(self.compiled.address("switches"), Relaxed);
        // SAFETY: headers and stack outlive the switches and have no other user. The goroutine does
        // not end; its frames own nothing.
        unsafe {
            asm::prepare(&goroutine);
            asm::set_current(&mut machine);
            assert_eq!(asm::run(&mut machine, &mut goroutine), 0);
            goroutine.resume_value.store(1, Relaxed);
            assert_eq!(asm::run(&mut machine, &mut goroutine), 1);
            let time = nanos(n, || {
                for i in 0..n {
                    goroutine.resume_value.store(black_box(i), Relaxed);
                    black_box(asm::run(&mut machine, &mut goroutine));
                }
            });
            asm::set_current(std::ptr::null_mut());
            time
        }
    }

    /// A new thread's first call in, and its second.
    fn first_calls(&self, threads: usize) -> (f64, f64) {
        let mut total = (0.0, 0.0);
        for _ in 0..threads {
            let thread = std::thread::spawn(|| {
                let call = || nanos(1, || assert_eq!(exported(1), 2));
                (call(), call())
            });
            let (first, second) = thread.join().expect("no panic");
            total = (total.0 + first, total.1 + second);
        }
        (total.0 / threads as f64, total.1 / threads as f64)
    }
}

/// Two goroutines that yield to each other, under a scheduler with one thread.
fn gosched(n: usize) -> f64 {
    let code = Arc::new(Code::new());
    let compiled = compile(&code);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    let (idle, is_idle) = mpsc::channel();
    let scheduler =
        Scheduler::new(&runtime, 1, Box::new(move || idle.send(()).expect("the receiver waits")));
    for _ in 0..2 {
        // SAFETY: compiled code that keeps the contracts.
        runtime
            .schedule(unsafe { runtime.spawn(compiled.address("yields"), n / 2) }.expect("memory"));
    }
    let begin = Instant::now();
    let threads = scheduler.start().expect("a thread");
    is_idle.recv().expect("both end");
    let time = begin.elapsed().as_nanos() as f64 / n as f64;
    assert_eq!(runtime.live_goroutines(), 0);
    threads.stop();
    time
}

fn main() {
    let quick = std::env::args().any(|a| a == "--quick" || a == "--test");
    let machine = quiet::Machine::look();
    // Short rounds, so that some of them are not interrupted.
    let (rounds, n) = if quick { (2, 20_000) } else { (101, 50_000) };
    let code = Arc::new(Code::new());
    let compiled = compile(&code);
    LEAF.store(compiled.address("leaf"), Relaxed);
    let runtime =
        Runtime::new(Config::default(), code, Box::new(Embedder)).expect("the assembly's frames");
    assert!(RUNTIME.set(runtime.clone()).is_ok());
    let bench = Bench { runtime, compiled };
    let on_thread = native::Bench::new();
    let mut best: Option<Times> = None;
    let mut native: Option<native::Times> = None;
    for _ in 0..rounds {
        let now = on_thread.round(n);
        native = Some(native.map_or(now, |best| best.least(now)));
        let function = black_box(plain as extern "C-unwind" fn(usize) -> usize);
        let (first_call, second_call) = bench.first_calls(20);
        let now = Times {
            plain: nanos(n, || {
                for i in 0..n {
                    black_box(black_box(function)(i));
                }
            }),
            leaf: bench.calls(n, leaf_call),
            foreign: bench.calls(n, foreign),
            callback: bench.callbacks(n),
            switch: bench.switches(n),
            gosched: gosched(n),
            corosensei: peers::corosensei(n),
            first_call,
            second_call,
        };
        let least = |a: f64, b: f64| a.min(b);
        best = Some(best.map_or(now, |b| Times {
            plain: least(b.plain, now.plain),
            leaf: least(b.leaf, now.leaf),
            foreign: least(b.foreign, now.foreign),
            callback: least(b.callback, now.callback),
            switch: least(b.switch, now.switch),
            gosched: least(b.gosched, now.gosched),
            corosensei: least(b.corosensei, now.corosensei),
            first_call: least(b.first_call, now.first_call),
            second_call: least(b.second_call, now.second_call),
        }));
    }
    let t = best.expect("at least one round");
    let own = native.expect("at least one round");
    let go = peers::go(rounds, n, quick);
    drop(machine);
    println!("plain call                            {:8.2} ns", t.plain);
    println!("leaf call (noblock)                   {:8.2} ns", t.leaf);
    println!("foreign call and return               {:8.2} ns", t.foreign);
    println!("callback                              {:8.2} ns", t.callback);
    println!("switch to a goroutine and back, bare  {:8.2} ns", t.switch);
    println!("corosensei resume and suspend         {:8.2} ns", t.corosensei);
    println!("yield to another goroutine, scheduled {:8.2} ns", t.gosched);
    println!("the first call in of a new thread     {:8.0} ns", t.first_call);
    println!(
        "its second                            {:8.0} ns, with the clock's own time",
        t.second_call
    );
    println!("on a thread's own stack:");
    println!("a plain call by managed code          {:8.2} ns", own.plain);
    println!("call_native                           {:8.2} ns", own.call);
    println!("foreign call and return               {:8.2} ns", own.foreign);
    println!("entry by native code that runs        {:8.2} ns", own.entry);
    println!("callback                              {:8.2} ns", own.callback);
    println!("a hit, above a plain return           {:8.2} ns", own.hit());
    println!("figure native_call_above_plain {:.3} ns", own.call - own.plain);
    println!("figure native_call_vs_plain {:.3} ratio", own.call / own.plain);
    println!("figure native_entry {:.2} ns", own.entry);
    println!("figure native_entry_vs_plain {:.3} ratio", own.entry / own.plain);
    println!("figure native_callback {:.2} ns", own.callback);
    println!("figure native_hit {:.2} ns", own.hit());
    println!("figure native_hit_vs_plain {:.3} ratio", own.hit() / own.plain);
    println!("figure switch_vs_corosensei {:.3} ratio", t.switch / t.corosensei);
    println!("figure scheduled_switch_vs_corosensei {:.3} ratio", t.gosched / t.corosensei);
    println!("figure foreign_call_vs_plain {:.3} ratio", t.foreign / t.plain);
    println!("figure leaf_call_vs_plain {:.3} ratio", t.leaf / t.plain);
    println!("figure first_call_on_a_thread {:.0} ns", t.first_call);
    if let Some(go) = go {
        println!(
            "{}: call {:.2} ns, callback {:.2} ns, Gosched {:.2} ns",
            go.version, go.call, go.callback, go.gosched
        );
        println!("figure foreign_call_vs_go {:.3} ratio", t.foreign / go.call);
        println!("figure callback_vs_go {:.3} ratio", t.callback / go.callback);
        println!("figure native_call_vs_go {:.3} ratio", own.call / go.call);
        println!("figure native_foreign_call_vs_go {:.3} ratio", own.foreign / go.call);
        println!("figure native_callback_vs_go {:.3} ratio", own.callback / go.callback);
        println!("figure native_hit_vs_go_call {:.3} ratio", own.hit() / go.call);
        println!("figure gosched_vs_go {:.3} ratio", t.gosched / go.gosched);
    }
}
