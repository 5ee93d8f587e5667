//! Walks are right at every single instruction: of compiled code with its prologues and epilogues,
//! of the switches between stacks in both directions, of barrier stubs and hits, while the stack
//! moves.
//!
//! The processor traps behind each instruction of a goroutine's thread. The calls and returns so
//! far tell where the thread must return to. A trace from the trap must find just that; in the
//! assembly libgcc's unwinder must, too.
// Only these processors trap behind each instruction without a debugger.
#![cfg(any(target_arch = "x86_64", target_arch = "x86"))]
// The trap would be an exception of Windows, whose handlers run on the goroutine's stack.
#![cfg(not(windows))]

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use compiler::rec_result;
use parking_lot::Mutex;
use stackmark_stack::asm::{self, barrier, layout::GoroutineHeader};
use stackmark_stack::unwind::{
    Code, LiveMemory, Memory, RegisterSet, ReturnAddresses, RuleCache, Unwinder, WalkError,
};
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Goroutine, Host, Left, Machine, NextCycle, RootSink,
    Runtime, ScanScope,
};

/// The flag in `rflags` that makes the processor trap.
const TRAP: libc::greg_t = 1 << 8;
const WORD: usize = size_of::<usize>();
/// Bytes that a return may pop. On i686 the address of a structure to fill goes with it.
const RETURN_POPS: &[usize] = if WORD == 4 { &[WORD, 2 * WORD] } else { &[WORD] };
/// Of native instructions, which are many and all alike, so few are looked at. On i686 none: there
/// CFI is wrong where compilers push arguments or load the pc, and the system's own code has none.
const NATIVE_SHARE: Option<u64> = if WORD == 4 { None } else { Some(61) };

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }

    fn at_poll(&self, _goroutine: &Goroutine) {
        if STATE.load(Relaxed) == READY {
            // SAFETY: traps, into our handler, which makes the processor trap from here on.
            unsafe { std::arch::asm!("int3") };
        }
    }
}

struct NoRoots;

impl RootSink for NoRoots {
    fn roots(&self, _words: &[usize]) {}
}

struct Stubs;

impl ReturnAddresses for Stubs {
    fn original(&self, found: usize) -> Option<usize> {
        barrier::original(found)
    }
}

/// What went wrong first. Made in the handler, which allocates nothing.
#[derive(Debug)]
#[allow(dead_code, reason = "shown if the test fails")]
struct Failure {
    what: &'static str,
    pc: usize,
    /// After so many frames of the trace.
    frame: usize,
    found: usize,
    expected: Option<usize>,
    error: Option<WalkError>,
}

/// What the trap handler knows of the thread that it follows.
struct Stepper {
    code: Arc<Code>,
    cache: RuleCache,
    system: Range<usize>,
    /// The record of the goroutine.
    goroutine: &'static GoroutineHeader,
    /// The native function that a goroutine ends in.
    exit: usize,
    /// The addresses that the thread will return to, the next one last: of the goroutine with the
    /// native functions that it has called out to, and of its scheduler.
    returns: [Vec<usize>; 2],
    /// The stack pointer of the scheduler when it runs a goroutine.
    run_sp: usize,
    /// Whether they have been taken from a first trace.
    begun: [bool; 2],
    /// Which of them the last instruction belonged to.
    side: usize,
    /// Stack pointer, pc and word at the stack pointer before the instruction.
    last: Option<(usize, usize, usize)>,
    /// Between the two.
    switches: u64,
    steps: u64,
    compared: u64,
    /// What libgcc has found, and whether it stands exactly there.
    system_trace: Vec<(usize, c_int)>,
    /// Instructions of compiled code, of the assembly, of the pool.
    kinds: [u64; 3],
    failure: Option<Failure>,
}

struct Shared(UnsafeCell<Option<Stepper>>);

// SAFETY: only the thread that is followed, and its handler, use it; one test at a time.
unsafe impl Sync for Shared {}

static STEPPER: Shared = Shared(UnsafeCell::new(None));
static ONE: Mutex<()> = Mutex::new(());
/// What the stepping has come to.
static STATE: AtomicUsize = AtomicUsize::new(OVER);
const READY: usize = 0;
const STEPPING: usize = 1;
const OVER: usize = 2;

extern "C" fn on_trap(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel's structure, which is ours until the handler returns.
    let context = unsafe { &mut *context };
    let interrupted = RegisterSet::interrupted(context);
    // SAFETY: the thread that is followed is in this handler and nowhere else.
    let stepper = unsafe { (*STEPPER.0.get()).as_mut() }.expect("set before stepping");
    if STATE.load(Relaxed) == READY {
        STATE.store(STEPPING, Relaxed);
        context.uc_mcontext.gregs[libc::REG_EFL as usize] |= TRAP;
    }
    if interrupted.pc() == stepper.exit {
        // What comes now leaves the goroutine's stack for good.
        context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP;
        STATE.store(OVER, Relaxed);
        return;
    }
    stepper.step(&interrupted);
}

/// The goroutine's stack, unless one of its ends alone is a new one's. A size is a power of two.
fn stack(goroutine: &GoroutineHeader) -> Option<Range<usize>> {
    let (lo, hi) = (goroutine.stack_lo.load(Relaxed), goroutine.stack_hi.load(Relaxed));
    hi.checked_sub(lo).is_some_and(usize::is_power_of_two).then_some(lo..hi)
}

/// The memory that a trace of this thread needs: the stack of the goroutine, its own; the
/// goroutine's header, which says where the goroutine's stack is; the stubs and their saved return
/// addresses.
fn memories(system: Range<usize>, goroutine: &GoroutineHeader) -> [LiveMemory; 5] {
    let at = std::ptr::from_ref(goroutine) as usize;
    let header = at..at + size_of::<GoroutineHeader>();
    let stack = stack(goroutine).unwrap_or_default();
    let memories = [stack, system, header, barrier::pool(), barrier::table()];
    // SAFETY: all are mapped; only this thread changes the stacks.
    memories.map(|range| unsafe { LiveMemory::new(range) })
}

impl Stepper {
    fn step(&mut self, context: &RegisterSet) {
        self.steps += 1;
        let (sp, pc) = (context.sp(), context.pc());
        let memory = memories(self.system.clone(), self.goroutine);
        let top = memory.read(sp).unwrap_or(0);
        let side = self.side_of(sp, pc);
        let old_side = std::mem::replace(&mut self.side, side);
        let last = self.last.replace((sp, pc, top));
        if old_side != self.side {
            self.switched(old_side);
        }
        match last {
            _ if !std::mem::replace(&mut self.begun[self.side], true) => {
                self.begin(context, &memory)
            }
            Some((old_sp, old_pc, old_top)) if old_side == self.side => {
                self.follow(old_sp, old_pc, old_top, sp, pc, top);
            }
            _ => {}
        }
        let kind = self.kind(pc);
        if let Some(kind) = kind {
            self.kinds[kind] += 1;
        }
        // Between the two stores that say where a stack has moved there is none to look at.
        let has_stack = stack(self.goroutine).is_some();
        let shares = kind.is_some() || NATIVE_SHARE.is_some_and(|n| self.steps.is_multiple_of(n));
        if self.failure.is_none() && has_stack && shares {
            self.compare(context, memory);
            if kind == Some(ASSEMBLY) {
                self.compare_system_unwinder(pc);
            }
        }
    }

    fn kind(&self, pc: usize) -> Option<usize> {
        let call_system = asm::call_system_address()..asm::call_system_address() + 128;
        let switch_out = switch_out_range();
        let assembly = [
            asm::system_call_range(),
            asm::callback_range(),
            asm::entry_range(),
            call_system,
            switch_out,
        ];
        let run = run_pc().saturating_sub(RUN_BYTES)..run_pc() + RUN_BYTES;
        let assembly = assembly.iter().chain([&run]);
        if barrier::pool().contains(&pc) {
            Some(STUBS)
        } else if assembly.into_iter().any(|range| range.contains(&pc)) {
            Some(ASSEMBLY)
        } else {
            self.code.snapshot().function(pc).map(|_| MANAGED)
        }
    }

    /// The side that this stack pointer belongs to. The scheduler's frames older than `run` are
    /// above where calls out begin that are in no callback.
    fn side_of(&mut self, sp: usize, pc: usize) -> usize {
        // A call out begins on the system stack where the scheduler's frames end.
        let calls_out = (asm::call_system_address()..asm::native_return_pc()).contains(&pc);
        // SAFETY: the thread's own machine.
        let Some(machine) = (unsafe { asm::current().as_ref() }) else { return SCHEDULER };
        self.run_sp = self.run_sp.max(machine.system_sp.load(Relaxed));
        let older = self.system.contains(&sp) && sp >= self.run_sp && !calls_out;
        match machine.goroutine.load(Relaxed) {
            _ if older => SCHEDULER,
            // A call out by which the goroutine leaves empties the word before it switches.
            0 => self.side,
            _ => GOROUTINE,
        }
    }

    /// The other stack is run on.
    fn switched(&mut self, old_side: usize) {
        self.switches += 1;
        if old_side == GOROUTINE {
            // The native frames of a call out have been dropped.
            let returns = &mut self.returns[GOROUTINE];
            let call_out = returns.iter().rposition(|address| *address == asm::native_return_pc());
            returns.truncate(call_out.unwrap_or(returns.len()));
        }
    }

    /// Whether the scheduler's next return address is the one that the assembly has in a register,
    /// between two stacks.
    fn is_between_stacks(&self, pc: usize) -> bool {
        self.side == SCHEDULER
            && [asm::system_call_range(), switch_out_range()]
                .iter()
                .any(|range| range.contains(&pc))
    }

    /// Takes the first trace, from a native function or at the first switch out, as true.
    fn begin(&mut self, context: &RegisterSet, memory: &[LiveMemory; 5]) {
        let snapshot = self.code.snapshot();
        let mut trace = Unwinder::new(&snapshot, &mut self.cache, memory, Stubs, *context);
        while let Ok(Some(frame)) = trace.next_frame() {
            self.returns[self.side]
                .extend((frame.return_address != 0).then_some(frame.return_address));
        }
        drop(snapshot);
        let pc = context.pc();
        if self.is_between_stacks(pc) {
            self.returns[self.side].remove(0);
        }
        let returns = &mut self.returns[self.side];
        returns.reverse();
        if self.side == GOROUTINE
            && returns.first().is_none_or(|oldest| !asm::entry_range().contains(oldest))
        {
            let (frame, found) = (returns.len(), returns.first().copied().unwrap_or(0));
            let what = "the first trace does not end at the goroutine's entry";
            self.fail(Failure { what, pc, frame, found, expected: None, error: None });
        }
    }

    /// Notes a call or a return.
    fn follow(
        &mut self,
        old_sp: usize,
        old_pc: usize,
        old_top: usize,
        sp: usize,
        pc: usize,
        top: usize,
    ) {
        let pool = barrier::pool();
        let returns = &mut self.returns[self.side];
        if sp == old_sp.wrapping_sub(WORD) && (2..=8).contains(&top.wrapping_sub(old_pc)) {
            // A call of a stub is none of the program's: it stands for the return that led there.
            // On i686 a call of the next instruction is how compilers load the pc.
            if !pool.contains(&old_pc) && pc != top {
                returns.push(top);
            }
        } else if RETURN_POPS.contains(&sp.wrapping_sub(old_sp))
            && pc == old_top
            && !pool.contains(&pc)
        {
            let expected = returns.pop();
            if expected != Some(pc) {
                self.fail(Failure {
                    what: "a return",
                    pc: old_pc,
                    frame: 0,
                    found: pc,
                    expected,
                    error: None,
                });
            }
        } else if self.side == GOROUTINE
            && asm::system_call_range().contains(&old_pc)
            && returns.last() == Some(&pc)
        {
            // A frame that was left goes on by a jump.
            returns.pop();
        }
    }

    fn compare(&mut self, context: &RegisterSet, memory: [LiveMemory; 5]) {
        self.compared += 1;
        let between = self.is_between_stacks(context.pc()).then(run_pc);
        let snapshot = self.code.snapshot();
        let mut trace = Unwinder::new(&snapshot, &mut self.cache, memory, Stubs, *context);
        let mut frames = 0;
        let failure = loop {
            let expected =
                between.iter().chain(self.returns[self.side].iter().rev()).nth(frames).copied();
            let pc = context.pc();
            let failed = |what, found, error| {
                Some(Failure { what, pc, frame: frames, found, expected, error })
            };
            match trace.next_frame() {
                Ok(Some(frame)) if frame.return_address == 0 => {}
                Ok(Some(frame)) if Some(frame.return_address) == expected => frames += 1,
                Ok(Some(frame)) => break failed("a wrong caller", frame.return_address, None),
                Ok(None) if expected.is_none() => break None,
                Ok(None) => break failed("an end too early", 0, None),
                Err(error) => break failed("no caller", 0, Some(error)),
            }
        };
        drop(snapshot);
        if let Some(failure) = failure {
            self.fail(failure);
        }
    }

    /// What libgcc finds from the interrupted instruction on, with the barrier stubs that it shows
    /// as frames left out.
    fn compare_system_unwinder(&mut self, pc: usize) {
        unsafe extern "C-unwind" fn each(context: *mut c_void, found: *mut c_void) -> c_int {
            let mut exact = 0;
            // SAFETY: the unwinder's context, and our own vector, which has room.
            unsafe {
                (*found.cast::<Vec<(usize, c_int)>>())
                    .push((_Unwind_GetIPInfo(context, &mut exact), exact))
            };
            0
        }
        self.system_trace.clear();
        // SAFETY: the vector outlives the call.
        unsafe { _Unwind_Backtrace(each, (&raw mut self.system_trace).cast()) };
        let between = self.is_between_stacks(pc).then(run_pc);
        let expected = || between.iter().chain(self.returns[self.side].iter().rev()).copied();
        // The frames of this handler are younger.
        let found =
            self.system_trace.iter().skip_while(|(ip, exact)| *exact == 0 || *ip != pc).skip(1);
        let found = || {
            found.clone().map(|(ip, _)| *ip).filter(|ip| *ip != 0 && !barrier::pool().contains(ip))
        };
        if !found().eq(expected()) {
            let frame = found().zip(expected()).take_while(|(a, b)| a == b).count();
            let (what, expected) = ("libgcc finds a wrong caller", expected().nth(frame));
            let found = found().nth(frame).unwrap_or(0);
            self.fail(Failure { what, pc, frame, found, expected, error: None });
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, exact: *mut c_int) -> usize;
}

/// Kinds of instructions.
const MANAGED: usize = 0;
const ASSEMBLY: usize = 1;
const STUBS: usize = 2;

/// Sides of a switch.
const GOROUTINE: usize = 0;
const SCHEDULER: usize = 1;
/// At least the instructions of `run`, on either side of where it goes on.
const RUN_BYTES: usize = 64;

/// Where `run` goes on, which is inlined in the scheduler.
fn run_pc() -> usize {
    // SAFETY: the thread's own machine.
    unsafe { asm::current().as_ref() }.map_or(0, |machine| machine.run_pc.load(Relaxed))
}

/// `switch_out`, and `leave` behind it.
fn switch_out_range() -> Range<usize> {
    asm::switch_out_address()..asm::switch_out_address() + 128
}

fn thread_stack() -> Range<usize> {
    // SAFETY: the attributes are initialised by the first call.
    unsafe {
        let mut attributes = std::mem::zeroed();
        assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes), 0);
        let (mut start, mut size) = (std::ptr::null_mut::<c_void>(), 0);
        assert_eq!(
            libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size),
            0
        );
        libc::pthread_attr_destroy(&raw mut attributes);
        start as usize..start as usize + size
    }
}

/// What the recursion does at its bottom.
#[derive(Clone, Copy, PartialEq)]
enum Bottom {
    Cycle,
    Callback,
    /// Cycles, and yields before, after and in it; there is a cycle also whenever it has yielded.
    Yields,
}

/// The compiled entry for callbacks, and what is left to do: one callback. Its own bottom runs a
/// cycle.
static BACK: AtomicUsize = AtomicUsize::new(0);
/// Whether the bottom yields.
static YIELDS: AtomicBool = AtomicBool::new(false);
static OBJECT: usize = 7;

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    match BACK.swap(0, Relaxed) {
        0 => {
            caller.foreign(cycle);
            if YIELDS.load(Relaxed) {
                // SAFETY: nothing here owns anything.
                return unsafe { caller.yield_now(0) };
            }
        }
        back => {
            let goroutine = caller.goroutine().address();
            let mut argument = [goroutine, 3, &raw const OBJECT as usize, 0];
            // SAFETY: the callee is compiled code of one word in, one word out.
            caller.foreign(|| unsafe {
                let back = std::mem::transmute::<usize, asm::ManagedFn>(back);
                caller.callback(back, argument.as_mut_ptr() as usize).expect("no exception");
            });
            assert_eq!(argument[3], rec_result(3, OBJECT, 0));
        }
    }
    0
}

/// Drives the cycles of the test that runs.
static CYCLES: std::sync::Mutex<Option<CycleDriver>> = std::sync::Mutex::new(None);

/// Places barriers. No goroutine is Running on this thread.
fn cycle() {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let mut cycles = CYCLES.lock().expect("no test panics with it");
    let cycles = cycles.as_mut().expect("the test's");
    cycles.handshake();
    assert!(cycles.begin_scanning(NUMBER.fetch_add(1, Relaxed), ScanScope::Whole));
    cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
    cycles.stop_world(|world| world.end_scanning(NextCycle::IsWhole));
}

/// Runs a goroutine as often as it yields, with a cycle after each time, and once more.
fn run_to_the_end(machine: &Machine, mut goroutine: Arc<Goroutine>) -> u64 {
    for yields in 0.. {
        match machine.run(goroutine) {
            Left::Yielded(again) => {
                cycle();
                goroutine = again;
            }
            Left::Exited => return yields,
            Left::Parked => panic!("a goroutine parks here"),
        }
    }
    unreachable!("yields without end")
}

/// Runs a recursion of `n` calls on a goroutine and steps through all of it.
fn step_through(config: Config, n: usize, what: Bottom) {
    let _one = ONE.lock();
    std::thread::spawn(move || {
        let code = Arc::new(Code::new());
        let compiled = if what == Bottom::Yields {
            compiler::compile_yielding(&code, bottom)
        } else {
            compiler::compile(&code, bottom, 0)
        };
        YIELDS.store(what == Bottom::Yields, Relaxed);
        let runtime = Runtime::new(config, code.clone(), Box::new(Embedder));
        let runtime = runtime.expect("the assembly's frames");
        let cycles = CycleDriver::new(&runtime, Arc::new(NoRoots)).expect("one collector");
        *CYCLES.lock().expect("no test panics with it") = Some(cycles);
        let machine = Machine::attach(&runtime).expect("a fresh thread");
        let mut argument = [n, &raw const OBJECT as usize, 0];
        let mut spawn = || {
            let back = if what == Bottom::Callback { compiled.address("back") } else { 0 };
            BACK.store(back, Relaxed);
            // SAFETY: the entry is compiled code that keeps the contracts.
            let spawned = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) };
            spawned.expect("memory")
        };
        // Once without, so that the dynamic linker has resolved what is called: that is a million
        // instructions.
        run_to_the_end(&machine, spawn());
        let goroutine = spawn();
        code.refresh_images();
        code.snapshot().read_images().expect("the CFI of this process");
        let mut alternate = vec![0_u8; 1 << 20];
        let stack = libc::stack_t {
            ss_sp: alternate.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: alternate.len(),
        };
        // SAFETY: the handler runs on a stack of its own that outlives the stepping.
        unsafe {
            assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_trap as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()), 0);
        }
        // SAFETY: the record lives as long as the runtime, and the stepper not so long.
        let header = unsafe { &*(goroutine.address() as *const GoroutineHeader) };
        let stepper = Stepper {
            code: code.clone(),
            cache: RuleCache::fixed(1 << 14),
            system: thread_stack(),
            goroutine: header,
            exit: header.on_exit.load(Relaxed),
            returns: std::array::from_fn(|_| Vec::with_capacity(1 << 12)),
            run_sp: 0,
            begun: [false; 2],
            side: GOROUTINE,
            switches: 0,
            last: None,
            steps: 0,
            compared: 0,
            system_trace: Vec::with_capacity(1 << 12),
            kinds: [0; 3],
            failure: None,
        };
        // SAFETY: there is no other reference yet. The handler uses it from the first poll until
        // the goroutine's exit.
        unsafe { *STEPPER.0.get() = Some(stepper) };
        STATE.store(READY, Relaxed);
        let yields = run_to_the_end(&machine, goroutine);
        assert_eq!(STATE.load(Relaxed), OVER, "stepped until the goroutine's exit");
        // SAFETY: the handler does not come any more.
        let stepper = unsafe { (*STEPPER.0.get()).take() }.expect("put there above");
        let Stepper { switches, steps, compared, kinds, failure, .. } = stepper;
        println!(
            "{steps} instructions, of these {kinds:?} of managed code, assembly and stubs; \
             {compared} compared"
        );
        let name = failure.as_ref().and_then(|failure| {
            let snapshot = code.snapshot();
            let function = snapshot.function(failure.pc)?;
            Some(format!("{}+{:#x}", function.name, failure.pc - function.range.start))
        });
        assert!(failure.is_none(), "in {name:?}: {failure:#x?}");
        assert_eq!(argument[2], rec_result(n, OBJECT, 0));
        assert_eq!((yields, switches), if what == Bottom::Yields { (3, 6) } else { (0, 0) });
        assert!(
            {
                let n = n as u64;
                kinds[0] > 20 * n && kinds[1] > 50 * n && kinds[2] >= n
            },
            "{kinds:?}"
        );
        drop(alternate);
    })
    .join()
    .expect("no failure");
}

#[test]
fn through_calls_out_polls_and_barriers() {
    let config =
        Config { barriers: BarrierMode::EveryFrame, poll_always: true, ..Config::default() };
    step_through(config, 6, Bottom::Cycle);
}

#[test]
fn through_moves_of_the_stack_and_barriers() {
    let config = Config {
        barriers: BarrierMode::EveryFrame,
        move_every_poll: true,
        poison: true,
        ..Config::default()
    };
    step_through(config, 4, Bottom::Cycle);
}

#[test]
fn through_yields_of_managed_and_native_code() {
    let config =
        Config { barriers: BarrierMode::EveryFrame, poll_always: true, ..Config::default() };
    step_through(config, 3, Bottom::Yields);
}

#[test]
fn through_a_callback_and_barriers_below_it() {
    let config =
        Config { barriers: BarrierMode::EveryFrame, poll_always: true, ..Config::default() };
    step_through(config, 3, Bottom::Callback);
}
