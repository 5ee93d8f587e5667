//! Windows' unwinder and the library's walks find the same callers, with their registers, at every
//! instruction of Cranelift's code: a thread single-steps through it.
// Windows alone has UNWIND_INFO.
#![cfg(windows)]

use stackmark::unwind::{LiveMemory, RegisterSet, RuleCache, Unwinder};
use stackmark_cranelift::cranelift_codegen::gimli::Register;
use stackmark_cranelift::cranelift_codegen::ir::{StackSlotData, StackSlotKind};
use stackmark_cranelift::types::I64;
use stackmark_cranelift::{
    Engine, FuncId, Function, INT, InstBuilder, Module, Placed, Program, RunsOn, Settings, Value,
};
use std::arch::asm;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use windows_sys::Win32::Foundation::EXCEPTION_SINGLE_STEP;
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, CONTEXT, EXCEPTION_POINTERS, RemoveVectoredExceptionHandler,
    RtlLookupFunctionEntry, RtlVirtualUnwind, UNW_FLAG_NHANDLER,
};

/// The flag of the processor that makes it trap behind each instruction.
const TRAP: u32 = 1 << 8;

/// A managed caller: where a function returns to, and with which registers that functions keep.
type Caller = [usize; 7];

fn caller(context: &CONTEXT) -> Caller {
    let &CONTEXT { Rip, Rsp, Rbp, Rbx, R12, R13, R14, .. } = context;
    [Rip, Rsp, Rbp, Rbx, R12, R13, R14].map(|word| word as usize)
}

/// What a thread knows that steps.
struct Stepping<'p> {
    program: &'p Program,
    engine: &'p Engine,
    cache: RuleCache,
    /// The managed callers of what runs, the youngest last.
    callers: Vec<Caller>,
    /// Instructions of managed code, and frames that were compared.
    steps: usize,
    compared: usize,
    /// What was found elsewhere than it is: by whom, at which pc, what, and what it is.
    wrong: Vec<(&'static str, usize, Caller, Caller)>,
}

static STEPPING: AtomicPtr<Stepping<'static>> = AtomicPtr::new(ptr::null_mut());

unsafe extern "system" fn on_step(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    const CONTINUE_EXECUTION: i32 = -1;
    const CONTINUE_SEARCH: i32 = 0;
    // SAFETY: the system gives the record and the context of this thread's exception.
    let (code, context) = unsafe {
        let EXCEPTION_POINTERS { ExceptionRecord, ContextRecord } = *pointers;
        ((*ExceptionRecord).ExceptionCode, &mut *ContextRecord)
    };
    if code != EXCEPTION_SINGLE_STEP {
        return CONTINUE_SEARCH;
    }
    // SAFETY: null, or what the stepping thread has put there; only its handlers use it.
    match unsafe { STEPPING.load(Relaxed).as_mut() } {
        Some(stepping) => {
            stepping.step(context);
            context.EFlags |= TRAP;
        }
        None => context.EFlags &= !TRAP,
    }
    CONTINUE_EXECUTION
}

impl Stepping<'_> {
    fn step(&mut self, context: &CONTEXT) {
        let (pc, sp) = (context.Rip as usize, context.Rsp as usize);
        let Some(index) = self.program.function_index(pc) else { return };
        self.steps += 1;
        // What has been returned from.
        while self.callers.last().is_some_and(|[_, of, ..]| *of <= sp) {
            self.callers.pop();
        }
        if self.program.functions()[index].start == pc {
            // SAFETY: a function begins with its return address at the stack pointer.
            let returns_to = unsafe { *(sp as *const usize) };
            let [.., rbp, rbx, r12, r13, r14] = caller(context);
            self.callers.push([returns_to, sp + 8, rbp, rbx, r12, r13, r14]);
        }
        let found = self.by_windows(context);
        self.compare("Windows", pc, &found);
        let found = self.by_the_library(context);
        self.compare("the library", pc, &found);
    }

    /// Compares callers that were found, from the youngest to the first that is not managed.
    fn compare(&mut self, by: &'static str, pc: usize, found: &[Caller]) {
        // What an epilogue has restored lies below the stack pointer, where the trap writes.
        // SAFETY: an instruction of a function, and its last bytes behind it.
        let ends = [&EPILOGUE[..], &EPILOGUE[3..]].iter().any(|end| unsafe {
            std::slice::from_raw_parts(pc as *const u8, end.len().min(self.left(pc))) == *end
        });
        let words = if ends { 3 } else { 7 };
        for (found, expected) in found.iter().zip(self.callers.iter().rev()) {
            self.compared += 1;
            if found[..words] != expected[..words] && self.wrong.len() < 10 {
                self.wrong.push((by, pc, *found, *expected));
            }
        }
    }

    /// Bytes of the function from `pc` on.
    fn left(&self, pc: usize) -> usize {
        let index = self.program.function_index(pc).expect("managed code");
        let function = &self.program.functions()[index];
        function.start + function.len - pc
    }

    fn by_the_library(&mut self, context: &CONTEXT) -> Vec<Caller> {
        let registers = RegisterSet::interrupted(context);
        // SAFETY: a part of this thread's stack, which has frames of the test above.
        let stack = unsafe { LiveMemory::new(registers.sp()..registers.sp() + STACK_READ) };
        let snapshot = self.engine.runtime().code().snapshot();
        let mut unwinder = Unwinder::new(&snapshot, &mut self.cache, stack, (), registers);
        let mut found = Vec::new();
        while found.len() < COMPARED {
            let frame = unwinder.next_frame();
            assert!(matches!(frame, Ok(Some(_))), "{:#x}: {frame:?}", context.Rip);
            let word = |number| unwinder.register(Register(number)).unwrap_or(0);
            let [rbp, rbx, r12, r13, r14] = [6, 3, 12, 13, 14].map(word);
            found.push([unwinder.pc(), unwinder.sp(), rbp, rbx, r12, r13, r14]);
            if self.program.function_index(unwinder.pc()).is_none() {
                break;
            }
        }
        found
    }

    fn by_windows(&self, context: &CONTEXT) -> Vec<Caller> {
        let mut context = *context;
        let mut found = Vec::new();
        while found.len() < COMPARED {
            let (mut image, mut data, mut frame) = (0, ptr::null_mut(), 0);
            // SAFETY: the context is that of this thread, or of one of its frames.
            unsafe {
                let pc = context.Rip;
                let function = RtlLookupFunctionEntry(pc, &mut image, ptr::null_mut());
                assert!(!function.is_null(), "no function at {pc:#x}");
                let (none, kind) = (ptr::null_mut(), UNW_FLAG_NHANDLER);
                let (data, frame) = (&mut data, &mut frame);
                RtlVirtualUnwind(kind, image, pc, function, &mut context, data, frame, none);
            }
            found.push(caller(&context));
            if self.program.function_index(context.Rip as usize).is_none() {
                break;
            }
        }
        found
    }
}

/// How functions end: `mov rsp, rbp; pop rbp; ret`.
const EPILOGUE: [u8; 5] = [0x48, 0x89, 0xec, 0x5d, 0xc3];
/// Callers that are looked for at each instruction.
const COMPARED: usize = 4;
/// Bytes of the stack that they lie in.
const STACK_READ: usize = 4096;

unsafe extern "C-unwind" fn add(a: *mut c_void, b: usize) -> usize {
    a as usize + b
}

/// An engine whose code runs on threads' own stacks, where there is room for the records of
/// exceptions.
fn engine() -> Engine {
    let mut settings = Settings::default();
    // SAFETY: managed code runs on threads that are attached.
    settings.code.runs_on = unsafe { RunsOn::native_stacks() };
    Engine::new(settings).expect("an engine")
}

/// Makes a program that has this one exported function, and runs it with `argument` on this
/// thread, by `run`.
fn run(
    engine: &Engine,
    module: Module,
    main: FuncId,
    argument: usize,
    run: impl FnOnce(&Arc<Program>, &dyn Fn() -> usize) -> usize + Send,
) -> usize {
    let mut module = module;
    module.export(main).expect("exported");
    // SAFETY: the functions of these tests keep the contracts.
    let program = unsafe { engine.finish(module) }.expect("finished");
    std::thread::scope(|scope| {
        let on_thread = || {
            // SAFETY: what runs here was compiled for it.
            unsafe { engine.runtime().attach_native_stack() }.expect("a fresh thread");
            let call = || engine.call_in(&program, main, &[argument]).expect("called");
            run(&program, &call)
        };
        scope.spawn(on_thread).join().expect("no panic")
    })
}

/// `kept(n)`: recurses `n` deep with words in all registers that functions keep, and one in its
/// frame.
fn kept(module: &mut Module) -> FuncId {
    let kept = module.declare("kept", &[INT], &[INT]).expect("declared");
    let body = |f: &mut Function<'_>| {
        let n = f.param(0);
        let words: Vec<Value> = (3..9).map(|factor| f.ins().imul_imm_s(n, factor)).collect();
        let (last, more) = (f.create_block(), f.create_block());
        let (sum, zero) = (f.variable(INT), f.int(0));
        let called = f.leaf(add, n, zero);
        f.def_var(sum, called);
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        let below = f.call(kept, &[less])?[0];
        f.def_var(sum, below);
        f.ins().jump(last, &[]);
        f.switch_to_block(last);
        let sum = f.use_var(sum);
        let sum = words.iter().fold(sum, |sum, word| f.ins().iadd(sum, *word));
        f.return_(&[sum])
    };
    module.define(kept, body).expect("compiles");
    kept
}

#[test]
fn every_instruction_has_its_callers() {
    let engine = engine();
    engine.runtime().code().refresh_images();
    let mut module = engine.module().expect("a module");
    let main = kept(&mut module);
    let result = run(&engine, module, main, 4, |program, call| {
        let cache = RuleCache::new();
        let mut stepping = Stepping {
            program,
            engine: &engine,
            cache,
            callers: Vec::new(),
            steps: 0,
            compared: 0,
            wrong: Vec::new(),
        };
        // SAFETY: the handler takes its own exceptions alone.
        let handler = unsafe { AddVectoredExceptionHandler(1, Some(on_step)) };
        STEPPING.store((&raw mut stepping).cast(), Relaxed);
        // SAFETY: sets the trap flag; the handler keeps it set until it finds no stepping.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        let result = call();
        STEPPING.store(ptr::null_mut(), Relaxed);
        // SAFETY: added above. The next trap, which has happened, was the last.
        unsafe { RemoveVectoredExceptionHandler(handler) };
        let Stepping { steps, compared, wrong, .. } = &stepping;
        println!("{compared} callers of {steps} instructions");
        assert!(wrong.is_empty(), "{:#x?} in {:x?}", wrong, program.functions());
        assert!(*steps > 150 && *compared > 4 * steps, "{compared} of {steps}");
        result
    });
    assert_eq!(result, (3..9).sum::<usize>() * (4 + 3 + 2 + 1));
}

/// Writes to the page at the stack pointer: `mov dword ptr [rsp], 0`.
const PROBE: [u8; 7] = [0xc7, 0x04, 0x24, 0, 0, 0, 0];

/// The system commits a thread's stack page by page. Wine commits all of it, so the code is looked
/// at, too.
#[test]
fn large_frames_on_a_threads_stack_touch_each_page() {
    // Many are touched in a loop.
    for (bytes, probes) in [(1_000, 0), (5_000, 1), (9_000, 2), (60_000, 1), (400_000, 1)] {
        let engine = engine();
        let mut module = engine.module().expect("a module");
        let main = module.declare("main", &[INT], &[INT]).expect("declared");
        let body = |f: &mut Function<'_>| {
            let n = f.param(0);
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
            let slot = f.create_sized_stack_slot(slot);
            f.ins().stack_store(I64, n, slot, 0);
            let read = f.ins().stack_load(I64, I64, slot, 0);
            f.return_(&[read])
        };
        module.define(main, body).expect("compiles");
        let result = run(&engine, module, main, 7, |program, call| {
            let count = |&Placed { start, len, .. }: &Placed| {
                // SAFETY: the code of a function, which stays.
                let code = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
                code.windows(PROBE.len()).filter(|code| **code == PROBE).count()
            };
            let found: usize = program.functions().iter().map(count).sum();
            assert_eq!(found, probes, "of {bytes} bytes");
            call()
        });
        assert_eq!(result, 7);
    }
}
