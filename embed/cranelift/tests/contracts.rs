//! What a front end makes with this crate keeps the contracts, also under every stress; and the
//! mistakes that it can still make are found.

use stackmark::mark_sweep::{self, Descriptor, DescriptorId};
use stackmark::stack::{self, Caller, Goroutine, Host};
use stackmark::write_barrier::Kind as BarrierKind;
use stackmark::{Config, Generational};
use stackmark_cranelift::cranelift_codegen::ir::{StackSlotData, StackSlotKind};
use stackmark_cranelift::types::{F64, I64};
use stackmark_cranelift::{
    CompileError, Engine, FLOAT, FuncId, Function, INT, InstBuilder, IntCC, Kind, MemFlagsData,
    Module, Program, REF, Settings,
};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

// ANCHOR: stressed
/// Every stress at once: stacks move at every poll, freed memory is poisoned, every cycle is
/// verified, and every poll waits for a cycle.
fn stressed() -> Settings {
    Settings {
        stack: stack::Config {
            move_every_poll: true,
            poll_always: true,
            poison: true,
            scan_few_frames: true,
            ..stack::Config::default()
        },
        heap: mark_sweep::Options { poison: true, ..mark_sweep::Options::default() },
        collector: Config { verify: true, collect_every_poll: true, ..Config::default() },
        ..Settings::default()
    }
}
// ANCHOR_END: stressed

/// Collections beside the program, verified.
fn collecting() -> Settings {
    let mut settings = stressed();
    settings.stack.poll_always = false;
    settings.collector.collect_every_poll = false;
    settings
}

struct Built {
    engine: Engine,
    module: Module,
    cell: DescriptorId,
}

fn built(settings: Settings) -> Built {
    let engine = Engine::new(settings).expect("an engine");
    let descriptor = Descriptor::pattern(2, [1]).expect("a descriptor");
    let cell = engine.heap().register(descriptor).expect("registered");
    let module = engine.module().expect("a module");
    Built { engine, module, cell }
}

fn finish(engine: &Engine, module: Module) -> Arc<Program> {
    // SAFETY: these tests keep the contracts. Where one breaks them by intent, a child process runs
    // it, whose end is what the test looks at.
    unsafe { engine.finish(module) }.expect("finished")
}

type Body<'b> = &'b dyn Fn(&mut Function<'_>) -> Result<(), CompileError>;

impl Built {
    fn function(
        &mut self,
        name: &str,
        params: &[Kind],
        results: &[Kind],
        body: Body<'_>,
    ) -> FuncId {
        let id = self.module.declare(name, params, results).expect("declared");
        self.module.define(id, body).expect("compiles");
        id
    }

    /// Runs `main`, while a thread collects.
    fn run(self, main: FuncId, argument: usize) -> usize {
        self.run_program(main, argument).0
    }

    /// As [`Built::run`]; returns the program, too.
    fn run_program(mut self, main: FuncId, argument: usize) -> (usize, Arc<Program>) {
        self.module.export(main).expect("exported");
        let program = finish(&self.engine, self.module);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    self.engine.collector().collect();
                }
            });
            let result = self.engine.run(&program, main, argument);
            done.store(true, Relaxed);
            (result.expect("it runs to its end"), program.clone())
        })
    }

    /// `build(n)`: a list of the numbers from `n` down to 1.
    fn build(&mut self) -> FuncId {
        let (cell, build) = (self.cell, self.module.declare("build", &[INT], &[REF]).unwrap());
        let body: Body<'_> = &|f| {
            let (n, nil) = (f.param(0), f.int(0));
            let (more, last) = (f.create_block(), f.create_block());
            f.ins().brif(n, more, &[], last, &[]);
            f.switch_to_block(last);
            f.return_(&[nil])?;
            f.switch_to_block(more);
            let less = f.ins().iadd_imm_s(n, -1);
            let rest = f.call(build, &[less])?[0];
            let object = f.allocate(cell, 16);
            f.store_plain(n, object, 0);
            f.store_reference(rest, object, 8);
            f.return_(&[object])
        };
        self.module.define(build, body).expect("compiles");
        build
    }

    // ANCHOR: loop
    /// `sum(list)`, with a loop.
    fn sum(&mut self) -> FuncId {
        self.function("sum", &[REF], &[INT], &|f| {
            let (list, total) = (f.variable(REF), f.variable(INT));
            let (first, zero) = (f.param(0), f.int(0));
            f.def_var(list, first);
            f.def_var(total, zero);
            let [head, body, done] = [(); 3].map(|()| f.create_block());
            f.ins().jump(head, &[]);
            f.switch_to_block(head);
            f.poll();
            let at = f.use_var(list);
            f.ins().brif(at, body, &[], done, &[]);
            f.switch_to_block(body);
            let number = f.load_plain(I64, at, 0);
            let sum = f.use_var(total);
            let sum = f.ins().iadd(sum, number);
            f.def_var(total, sum);
            let rest = f.load_reference(at, 8);
            f.def_var(list, rest);
            f.ins().jump(head, &[]);
            f.switch_to_block(done);
            let total = f.use_var(total);
            f.return_(&[total])
        })
    }
    // ANCHOR_END: loop
}

fn lists(settings: Settings, n: usize) {
    let mut b = built(settings);
    let (build, sum) = (b.build(), b.sum());
    let main = b.function("main", &[INT], &[INT], &|f| {
        let list = f.call(build, &[f.param(0)])?[0];
        let p0 = f.param(0);
        let half = f.ins().ushr_imm_u(p0, 1);
        let other = f.call(build, &[half])?[0];
        let first = f.call(sum, &[list])?[0];
        let second = f.call(sum, &[other])?[0];
        let total = f.ins().isub(first, second);
        f.return_(&[total])
    });
    let sum = |n: usize| n * (n + 1) / 2;
    assert_eq!(b.run(main, n), sum(n) - sum(n / 2));
}

#[test]
fn lists_survive_every_stress() {
    lists(stressed(), 60);
}

#[test]
fn recursions_survive_collections_and_a_move_at_each_call() {
    lists(collecting(), 1_000);
}

#[test]
fn deep_recursions_survive_collections_and_moves() {
    let mut settings = collecting();
    settings.stack.move_every_poll = false;
    lists(settings, 100_000);
}

#[test]
fn lists_survive_with_the_hybrid_barrier_and_with_generations() {
    let mut settings = collecting();
    settings.collector.write_barrier = BarrierKind::Hybrid;
    lists(settings, 2_000);
    let mut settings = collecting();
    settings.collector.generational = Some(Generational { nursery: 1 << 16, short_scans: true });
    lists(settings, 5_000);
}

#[test]
fn a_full_heap_is_collected() {
    let mut settings = Settings::default();
    settings.heap.limit = 8 << 20;
    settings.collector.percent = None;
    let mut b = built(settings);
    let (build, sum) = (b.build(), b.sum());
    let main = b.function("main", &[INT], &[INT], &|f| {
        let left = f.variable(INT);
        let p0 = f.param(0);
        f.def_var(left, p0);
        let [head, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(head, &[]);
        f.switch_to_block(head);
        let thousand = f.int(1000);
        let list = f.call(build, &[thousand])?[0];
        let total = f.call(sum, &[list])?[0];
        let n = f.use_var(left);
        let n = f.ins().iadd_imm_s(n, -1);
        f.def_var(left, n);
        f.ins().brif(n, head, &[], done, &[]);
        f.switch_to_block(done);
        f.return_(&[total])
    });
    b.module.export(main).unwrap();
    let program = finish(&b.engine, b.module);
    assert_eq!(b.engine.run(&program, main, 2_000).unwrap(), 500_500);
    assert!(b.engine.collector().statistics().cycles > 1);
}

#[test]
fn results_beyond_the_registers_arrive() {
    let mut b = built(stressed());
    let build = b.build();
    let results = [INT, REF, FLOAT, INT, REF, FLOAT, FLOAT, INT];
    let many = b.function("many", &[INT], &results, &|f| {
        let n = f.param(0);
        let first = f.call(build, &[n])?[0];
        let second = f.call(build, &[n])?[0];
        let floats = [1.5, 2.5, 3.5].map(|x| f.ins().f64const(x));
        let [two, three] = [2, 3].map(|x| f.int(x));
        f.return_(&[n, first, floats[0], two, second, floats[1], floats[2], three])
    });
    let sum = b.sum();
    let main = b.function("main", &[INT], &[INT], &|f| {
        let r = f.call(many, &[f.param(0)])?;
        let first = f.call(sum, &[r[1]])?[0];
        let second = f.call(sum, &[r[4]])?[0];
        let float = f.ins().fadd(r[2], r[5]);
        let float = f.ins().fadd(float, r[6]);
        let float = f.ins().fcvt_to_sint(I64, float);
        let mut total = f.ins().imul(first, second);
        for value in [float, r[0], r[3], r[7]] {
            total = f.ins().iadd(total, value);
        }
        f.return_(&[total])
    });
    assert_eq!(b.run(main, 10), 55 * 55 + 7 + 10 + 2 + 3);
    let mut module = built(Settings::default()).module;
    let error = module.declare("too many", &[], &[INT; 40]).unwrap_err();
    assert!(matches!(error, CompileError::TooManyResults { results: 40 }), "{error}");
}

/// Recurses with frames of more than so many bytes, each of which uses both ends of them.
fn recurse_with_frames_of(settings: Settings, bytes: u32) -> bool {
    let mut b = built(settings);
    let (build, sum) = (b.build(), b.sum());
    let large = b.module.declare("large", &[INT, REF], &[INT]).unwrap();
    let body: Body<'_> = &|f| {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
        let slot = f.create_sized_stack_slot(slot);
        let (n, list) = (f.param(0), f.param(1));
        let last_word = bytes as i32 - 8;
        f.ins().stack_store(I64, n, slot, 0);
        f.ins().stack_store(I64, n, slot, last_word);
        let (more, last) = (f.create_block(), f.create_block());
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(last);
        let total = f.call(sum, &[list])?[0];
        f.return_(&[total])?;
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        let below = f.call(large, &[less, list])?[0];
        let kept = f.ins().stack_load(I64, I64, slot, last_word);
        let total = f.ins().iadd(below, kept);
        f.return_(&[total])
    };
    b.module.define(large, body).unwrap();
    let main = b.function("main", &[INT], &[INT], &|f| {
        let list = f.call(build, &[f.param(0)])?[0];
        let total = f.call(large, &[f.param(0), list])?[0];
        f.return_(&[total])
    });
    let (result, program) = b.run_program(main, 20);
    assert_eq!(result, 210 + 210);
    program.functions().iter().any(|function| function.makes_room)
}

#[test]
fn a_frame_beyond_the_limit_gets_its_room() {
    assert!(recurse_with_frames_of(stressed(), 100_000));
}

#[test]
fn the_runtimes_limit_says_which_frames_get_their_room() {
    for max_frame in [256, 384, 1024, 4096] {
        let mut settings = stressed();
        settings.stack.max_frame = max_frame;
        for bytes in (128..2 * max_frame as u32).step_by(max_frame / 8) {
            let asks = recurse_with_frames_of(settings.clone(), bytes);
            assert!(asks || (bytes as usize) < max_frame, "{bytes} of {max_frame}");
            assert!(!asks || bytes as usize > max_frame - 128, "{bytes} of {max_frame}");
        }
    }
}

#[test]
fn slots_hold_references_and_their_addresses_move() {
    let mut b = built(stressed());
    let (build, sum) = (b.build(), b.sum());
    let set = b.function("set", &[REF, INT], &[], &|f| {
        let list = f.call(build, &[f.param(1)])?[0];
        f.store_reference(list, f.param(0), 8);
        f.return_(&[])
    });
    let main = b.function("main", &[INT], &[INT], &|f| {
        let (_, slot) = f.slot(16, &[false, true])?;
        f.store_plain(f.param(0), slot, 0);
        f.call(set, &[slot, f.param(0)])?;
        let other = f.call(build, &[f.param(0)])?[0];
        let list = f.load_reference(slot, 8);
        let first = f.call(sum, &[list])?[0];
        let second = f.call(sum, &[other])?[0];
        let kept = f.load_plain(I64, slot, 0);
        let total = f.ins().iadd(first, second);
        let total = f.ins().iadd(total, kept);
        f.return_(&[total])
    });
    assert_eq!(b.run(main, 12), 78 + 78 + 12);
}

/// Raises from 30 frames deep, in a loop: whatever a scan is at, it goes on from the frame of the
/// landing pad.
fn raise_in_a_loop(settings: Settings, times: i64) {
    let mut b = built(settings);
    let (build, sum) = (b.build(), b.sum());
    // ANCHOR: raise
    let deep = b.module.declare("deep", &[INT], &[INT]).unwrap();
    let body: Body<'_> = &|f| {
        let n = f.param(0);
        let (more, last) = (f.create_block(), f.create_block());
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(last);
        let ten = f.int(10);
        let list = f.call(build, &[ten])?[0];
        let seven = f.int(7);
        f.raise(seven, list);
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        let result = f.call(deep, &[less])?[0];
        f.return_(&[result])
    };
    b.module.define(deep, body).unwrap();
    let catches = b.function("catches", &[INT], &[INT, INT], &|f| {
        let n = f.param(0);
        let own = f.call(build, &[n])?[0];
        let landing = f.create_block();
        let result = f.try_call(deep, &[n], landing)?[0];
        f.return_(&[result, n])?;
        f.switch_to_block(landing);
        let raised = f.block_params(landing).to_vec();
        let list = f.call(sum, &[raised[1]])?[0];
        let own = f.call(sum, &[own])?[0];
        let total = f.ins().iadd(list, own);
        f.return_(&[total, raised[0]])
    });
    // ANCHOR_END: raise
    let main = b.function("main", &[INT], &[INT], &|f| {
        let (left, n) = (f.variable(INT), f.param(0));
        let times = f.int(times);
        f.def_var(left, times);
        let [again, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(again, &[]);
        f.switch_to_block(again);
        let results = f.call(catches, &[n])?;
        let left_now = f.use_var(left);
        let less = f.ins().iadd_imm_s(left_now, -1);
        f.def_var(left, less);
        f.ins().brif(less, again, &[], done, &[]);
        f.switch_to_block(done);
        let total = f.ins().iadd(results[0], results[1]);
        f.return_(&[total])
    });
    assert_eq!(b.run(main, 30), 55 + 465 + 7);
}

#[test]
fn what_is_raised_lands_in_the_youngest_handler() {
    raise_in_a_loop(stressed(), 2);
}

#[test]
fn what_is_raised_lands_whatever_a_scan_is_at() {
    raise_in_a_loop(stressed(), 60);
    let mut settings = collecting();
    settings.collector.write_barrier = BarrierKind::Hybrid;
    raise_in_a_loop(settings, 400);
}

unsafe extern "C-unwind" fn add(a: *mut c_void, b: usize) -> usize {
    a as usize + b
}

extern "C" fn fails(a: usize, b: usize, c: usize) -> usize {
    system::fail();
    a * 100 + b * 10 + c
}

/// A function of the system that fails, and how.
#[cfg(not(windows))]
mod system {
    pub(super) const ERROR: usize = libc::EBADF as usize;

    pub(super) fn fail() {
        // SAFETY: it fails on what is not open.
        assert_eq!(unsafe { libc::close(-1) }, -1);
    }
}

#[cfg(windows)]
mod system {
    /// ERROR_INVALID_HANDLE.
    pub(super) const ERROR: usize = 6;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn CloseHandle(handle: usize) -> i32;
    }

    pub(super) fn fail() {
        // SAFETY: it fails on what is not open.
        assert_eq!(unsafe { CloseHandle(0x7fff_fff0) }, 0);
    }
}

#[test]
fn leaf_and_foreign_functions_are_called_with_their_errors() {
    let mut b = built(stressed());
    let (build, sum) = (b.build(), b.sum());
    let main = b.function("main", &[INT], &[INT], &|f| {
        let n = f.param(0);
        let list = f.call(build, &[n])?[0];
        let five = f.int(5);
        let leaf = f.leaf(add, n, five);
        let function = f.int(fails as *const () as i64);
        let (foreign, errno) = f.foreign(function, &[leaf, five, n]);
        let list = f.call(sum, &[list])?[0];
        let total = f.ins().iadd(foreign, list);
        let scaled = f.ins().imul_imm_s(errno, 100_000);
        let total = f.ins().iadd(total, scaled);
        f.return_(&[total])
    });
    assert_eq!(b.run(main, 3), (8 * 100 + 5 * 10 + 3) + 6 + system::ERROR * 100_000);
}

/// A host that knows what native code calls back.
struct CallsBack {
    program: std::sync::OnceLock<Arc<Program>>,
    function: std::sync::OnceLock<FuncId>,
    attached: AtomicUsize,
}

impl Host for CallsBack {
    fn stack_overflow(&self, _goroutine: &Goroutine, _limit: usize) -> ! {
        panic!("no overflow here")
    }
    fn machine_attached(&self) -> usize {
        self.attached.fetch_add(1, Relaxed) + 77
    }
    fn machine_detached(&self, word: usize) {
        assert_eq!(word, 77);
        self.attached.fetch_add(100, Relaxed);
    }
}

static ENGINE: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();

// ANCHOR: back
/// C that calls back: adds what managed code makes of each number below `n`.
extern "C" fn fold(n: usize) -> usize {
    let engine = ENGINE.get().expect("set");
    assert_eq!(Engine::machine_word(), 77);
    let host = engine.host::<CallsBack>().expect("our host");
    let (program, function) = (host.program.get().unwrap(), *host.function.get().unwrap());
    let call = |i: usize| {
        let called = |caller: Caller<'_>| {
            let mut words = [i, 3, 0, 0];
            // SAFETY: plain arguments and results.
            unsafe { program.call_back(caller, function, &mut words) }.expect("called back");
            words[2] + words[3]
        };
        engine.runtime().call_in(called).expect("in a foreign call")
    };
    (0..n).map(call).sum()
}
// ANCHOR_END: back

#[test]
fn callbacks_know_their_goroutine_and_move_its_stack() {
    let host = CallsBack {
        program: Default::default(),
        function: Default::default(),
        attached: AtomicUsize::new(0),
    };
    let engine = Engine::with_host(stressed(), Box::new(host)).unwrap();
    let cell = engine.heap().register(Descriptor::pattern(2, [1]).unwrap()).unwrap();
    let module = engine.module().unwrap();
    let mut b = Built { engine, module, cell };
    let (build, sum) = (b.build(), b.sum());
    let back = b.function("back", &[INT, INT], &[INT, INT], &|f| {
        let list = f.call(build, &[f.param(0)])?[0];
        let total = f.call(sum, &[list])?[0];
        f.return_(&[total, f.param(1)])
    });
    b.module.export(back).unwrap();
    let main = b.function("main", &[INT], &[INT], &|f| {
        let n = f.param(0);
        let list = f.call(build, &[n])?[0];
        let function = f.int(fold as *const () as i64);
        let (folded, _) = f.foreign(function, &[n]);
        let total = f.call(sum, &[list])?[0];
        let total = f.ins().iadd(total, folded);
        f.return_(&[total])
    });
    b.module.export(main).unwrap();
    let program = finish(&b.engine, b.module);
    let host = b.engine.host::<CallsBack>().unwrap();
    assert!(host.program.set(program.clone()).is_ok());
    host.function.set(back).unwrap();
    assert!(ENGINE.set(b.engine).is_ok());
    let engine = ENGINE.get().unwrap();
    let sums: usize = (0..8).map(|i| i * (i + 1) / 2 + 3).sum();
    assert_eq!(engine.run(&program, main, 8).unwrap(), 36 + sums);
    let host = engine.host::<CallsBack>().unwrap();
    assert_eq!(host.attached.load(Relaxed), 101, "attached once, and detached");
}

#[test]
fn sources_are_found_by_pc() {
    let mut b = built(Settings::default());
    let main = b.function("main", &[INT], &[INT], &|f| {
        f.set_srcloc(stackmark_cranelift::cranelift_codegen::ir::SourceLoc::new(12));
        let p0 = f.param(0);
        let result = f.ins().imul_imm_s(p0, 3);
        f.return_(&[result])
    });
    b.module.export(main).unwrap();
    let program = finish(&b.engine, b.module);
    let placed = program.functions().iter().find(|f| f.name == "main").unwrap();
    let lines: Vec<u32> =
        (0..placed.len).filter_map(|at| Some(program.source(placed.start + at)?.1)).collect();
    assert!(lines.contains(&12), "{lines:?}");
    assert_eq!(program.source(placed.start).unwrap().0, "main");
    assert_eq!(program.source(0), None);
}

/// Why the function is refused. It may call `callee(INT) -> REF`, which `body` is given.
fn refused(
    params: &[Kind],
    body: &dyn Fn(&mut Function<'_>, FuncId) -> Result<(), CompileError>,
) -> String {
    let mut settings = Settings::default();
    settings.code.checked = true;
    let mut b = built(settings);
    let callee = b.module.declare("callee", &[INT], &[REF]).unwrap();
    let id = b.module.declare("mistaken", params, &[INT]).unwrap();
    match b.module.define(id, |f| body(f, callee)) {
        Ok(()) => panic!("the mistake is not found"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_reference_that_is_held_undeclared_is_named_with_the_call() {
    // ANCHOR: held
    let error = refused(&[REF], &|f, callee| {
        // Not load_reference, as a front end would by mistake.
        let p0 = f.param(0);
        let held = f.ins().load(I64, MemFlagsData::trusted(), p0, 8);
        let one = f.int(1);
        f.call(callee, &[one])?;
        let result = f.ins().load(I64, MemFlagsData::trusted(), held, 0);
        f.return_(&[result])
    });
    // ANCHOR_END: held
    for part in ["function mistaken", "load", "a reference", "lives across", "call fn"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_derived_address_that_is_held_undeclared_is_found() {
    let error = refused(&[REF, INT], &|f, callee| {
        let p1 = f.param(1);
        let scaled = f.ins().ishl_imm_u(p1, 3);
        let p0 = f.param(0);
        let held = f.ins().iadd(p0, scaled);
        let one = f.int(1);
        f.call(callee, &[one])?;
        let result = f.load_plain(I64, held, 0);
        let more = f.load_plain(I64, held, 8);
        let result = f.ins().iadd(result, more);
        f.return_(&[result])
    });
    assert!(error.contains("a reference"), "{error}");
}

#[test]
fn an_address_of_the_stack_that_is_held_undeclared_is_found() {
    let error = refused(&[INT], &|f, callee| {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 64, 3);
        let slot = f.create_sized_stack_slot(slot);
        let p0 = f.param(0);
        let zero = f.int(0);
        f.ins().stack_store(I64, zero, slot, 8);
        // Which of two addresses it is, is known from where the code came. An address that can be
        // computed anew, is.
        let held = f.variable(INT);
        let [second, both] = [(); 2].map(|()| f.create_block());
        let first = f.ins().stack_addr(I64, slot, 0);
        f.def_var(held, first);
        f.ins().brif(p0, second, &[], both, &[]);
        f.switch_to_block(second);
        let address = f.ins().stack_addr(I64, slot, 8);
        f.def_var(held, address);
        f.ins().jump(both, &[]);
        f.switch_to_block(both);
        let one = f.int(1);
        f.call(callee, &[one])?;
        let held = f.use_var(held);
        let result = f.ins().load(I64, MemFlagsData::trusted(), held, 0);
        f.return_(&[result])
    });
    assert!(error.contains("an address in the stack"), "{error}");
}

#[test]
fn a_reference_around_a_loop_that_is_held_undeclared_is_found() {
    let error = refused(&[REF], &|f, _| {
        // A variable of the wrong kind.
        let (list, first) = (f.variable(INT), f.param(0));
        f.def_var(list, first);
        let [head, body, done] = [(); 3].map(|()| f.create_block());
        f.ins().jump(head, &[]);
        f.switch_to_block(head);
        f.poll();
        let at = f.use_var(list);
        f.ins().brif(at, body, &[], done, &[]);
        f.switch_to_block(body);
        let rest = f.load_reference(at, 8);
        f.def_var(list, rest);
        f.ins().jump(head, &[]);
        f.switch_to_block(done);
        let zero = f.int(0);
        f.return_(&[zero])
    });
    assert!(error.contains("lives across"), "{error}");
}

#[test]
fn wrong_numbers_of_values_are_errors() {
    let arity = |body: &dyn Fn(&mut Function<'_>, FuncId) -> Result<(), CompileError>| {
        refused(&[INT], body)
    };
    assert!(arity(&|f, _| f.return_(&[])).contains("a return has 0 values where 1 are expected"));
    let call = arity(&|f, callee| f.call(callee, &[]).map(drop));
    assert!(call.contains("a call of callee has 0 values where 1 are expected"), "{call}");
}

/// Moves references between two arrays; with `barrier`, as is right.
fn move_between_arrays(barrier: bool) {
    const WORDS: i64 = 200_000;
    let mut settings = Settings::default();
    settings.collector.verify = true;
    let mut b = built(settings);
    let references = b.engine.heap().register(Descriptor::references()).unwrap();
    let cell = b.cell;
    let array = move |f: &mut Function<'_>| {
        let bytes = f.int(WORDS * 8);
        f.allocate_bytes(references, bytes)
    };
    let counted = |f: &mut Function<'_>, each: &dyn Fn(&mut Function<'_>, _)| {
        let i = f.variable(INT);
        let zero = f.int(0);
        f.def_var(i, zero);
        let [head, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(head, &[]);
        f.switch_to_block(head);
        f.poll();
        let at = f.use_var(i);
        each(f, at);
        let at = f.use_var(i);
        let next = f.ins().iadd_imm_s(at, 1);
        f.def_var(i, next);
        let more = f.ins().icmp_imm_s(IntCC::SignedLessThan, next, WORDS);
        f.ins().brif(more, head, &[], done, &[]);
        f.switch_to_block(done);
    };
    let element = |f: &mut Function<'_>, array, at| {
        let offset = f.ins().ishl_imm_u(at, 3);
        let address = f.ins().iadd(array, offset);
        f.reference(address)
    };
    let store = move |f: &mut Function<'_>, value, at| match barrier {
        true => f.store_reference(value, at, 0),
        false => f.store_plain(value, at, 0),
    };
    let exchange = b.function("exchange", &[REF, REF], &[], &|f| {
        let (from, to) = (f.param(0), f.param(1));
        counted(f, &|f, at| {
            let last = f.int(WORDS - 1);
            let mirrored = f.ins().isub(last, at);
            let from = element(f, from, mirrored);
            let to = element(f, to, at);
            let moved = f.load_reference(from, 0);
            store(f, moved, to);
            let nil = f.int(0);
            store(f, nil, from);
        });
        f.return_(&[])
    });
    let main = b.function("main", &[INT], &[INT], &|f| {
        let first = array(f);
        let second = array(f);
        counted(f, &|f, at| {
            let object = f.allocate(cell, 16);
            let to = element(f, first, at);
            f.store_reference(object, to, 0);
        });
        let left = f.variable(INT);
        let p0 = f.param(0);
        f.def_var(left, p0);
        let [head, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(head, &[]);
        f.switch_to_block(head);
        f.call(exchange, &[first, second])?;
        f.call(exchange, &[second, first])?;
        let n = f.use_var(left);
        let n = f.ins().iadd_imm_s(n, -1);
        f.def_var(left, n);
        f.ins().brif(n, head, &[], done, &[]);
        f.switch_to_block(done);
        let zero = f.ins().f64const(0.0);
        let result = f.ins().bitcast(I64, MemFlagsData::new(), zero);
        debug_assert_eq!(f.func.dfg.value_type(zero), F64);
        f.return_(&[result])
    });
    let rounds = if barrier { 20 } else { 5_000 };
    println!("moved: {}", b.run(main, rounds));
}

#[test]
fn moves_between_arrays_by_the_barrier_lose_nothing() {
    move_between_arrays(true);
}

#[test]
fn a_store_without_the_barrier_is_what_verification_reports() {
    const CHILD: &str = "STACKMARK_CRANELIFT_CHILD";
    const NAME: &str = "a_store_without_the_barrier_is_what_verification_reports";
    if std::env::var_os(CHILD).is_some() {
        return move_between_arrays(false);
    }
    let child = limits::this_program()
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stderr);
    println!("{text}");
    assert!(!child.status.success(), "{text}");
    assert!(text.contains("unmarked") || text.contains("not marked"), "{text}");
}
