//! Walks of a process of Windows, compared with the system's own frame by frame; managed code that
//! the system walks; images that come and go.
// Windows alone has these calls.
#![cfg(windows)]

use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gimli::write::{
    Address, CallFrameInstruction, CommonInformationEntry, EhFrame, EndianVec,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian, Register, X86_64};
use stackmark_unwind::{
    Announce, Code, Function, FunctionUnwindInfo, Image, ImageError, LiveMemory, ManagedImageError,
    Region, RegisterImageError, RegisterSet, RuleCache, ThreadStacks, Unwinder,
};
use windows_sys::Win32::Foundation::FreeLibrary;
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, CONTEXT, CONTEXT_FULL_AMD64, EXCEPTION_POINTERS, GetThreadContext,
    RemoveVectoredExceptionHandler, RtlCaptureContext, RtlLookupFunctionEntry, RtlVirtualUnwind,
};
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryA};
use windows_sys::Win32::System::Memory::{MEM_COMMIT, PAGE_EXECUTE_READWRITE, VirtualAlloc};
use windows_sys::Win32::System::Threading::{ResumeThread, SuspendThread};

/// The system stores vector registers in it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Context(CONTEXT);

impl Context {
    fn new() -> Context {
        Context(CONTEXT { ContextFlags: CONTEXT_FULL_AMD64, ..CONTEXT::default() })
    }

    /// That of the caller.
    #[inline(always)]
    fn capture() -> Context {
        let mut context = Context::new();
        // SAFETY: writes the structure.
        unsafe { RtlCaptureContext(&raw mut context.0) };
        context
    }
}

/// A frame: pc, stack pointer, and the registers that functions keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    pc: usize,
    sp: usize,
    kept: [Option<usize>; 8],
}

const KEPT: [Register; 8] = [
    X86_64::RBP,
    X86_64::RBX,
    X86_64::RSI,
    X86_64::RDI,
    X86_64::R12,
    X86_64::R13,
    X86_64::R14,
    X86_64::R15,
];

/// All frames by the system, from the one of the context on.
fn by_system(mut context: Context, end: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let context = &mut context.0;
    while context.Rip != 0 && frames.len() < 500 {
        let kept = [
            context.Rbp,
            context.Rbx,
            context.Rsi,
            context.Rdi,
            context.R12,
            context.R13,
            context.R14,
            context.R15,
        ];
        frames.push(Frame {
            pc: context.Rip as usize,
            sp: context.Rsp as usize,
            kept: kept.map(|value| Some(value as usize)),
        });
        if context.Rsp as usize + 8 > end {
            break;
        }
        // SAFETY: the context is one of a thread that stands still, whose stack ends at `end`.
        unsafe {
            let mut base = 0;
            let entry = RtlLookupFunctionEntry(context.Rip, &raw mut base, ptr::null_mut());
            if entry.is_null() {
                context.Rip = *(context.Rsp as *const u64);
                context.Rsp += 8;
            } else {
                let (mut data, mut frame) = (ptr::null_mut(), 0);
                RtlVirtualUnwind(
                    0,
                    base,
                    context.Rip,
                    entry,
                    context,
                    &raw mut data,
                    &raw mut frame,
                    ptr::null_mut(),
                );
            }
        }
    }
    frames
}

/// All frames by this library.
fn by_library(
    code: &Code,
    context: RegisterSet,
    memory: impl stackmark_unwind::Memory,
) -> Vec<Frame> {
    let mut cache = RuleCache::new();
    let snapshot = code.snapshot();
    let mut trace = Unwinder::new(&snapshot, &mut cache, memory, (), context);
    let mut frames = Vec::new();
    loop {
        let kept = KEPT.map(|register| trace.register(register));
        frames.push(Frame { pc: trace.pc(), sp: trace.sp(), kept });
        match trace.next_frame() {
            Ok(Some(_)) if trace.pc() != 0 => {}
            Ok(_) => return frames,
            Err(error) => panic!("{error} behind {:#x?}", frames.last()),
        }
    }
}

/// Compares both from here on. Yields the frames.
#[inline(never)]
fn compare_here(code: &Code) -> Vec<Frame> {
    code.refresh_images();
    let stacks = ThreadStacks::current().unwrap();
    let context = Context::capture();
    let registers = RegisterSet::interrupted(&context.0);
    // SAFETY: this thread's own stack, from this frame on.
    let memory = unsafe { stacks.memory(registers.sp()) };
    let library = by_library(code, registers, &memory);
    let system = by_system(context, stacks.stack().end);
    compare(&library, &system);
    // The library's own capture finds the same callers.
    let registers = RegisterSet::capture();
    let own = by_library(code, registers, &memory);
    assert_eq!(own[1..], library[1..]);
    library
}

/// The library knows when a stack ends; the system may go on with what lies there.
fn compare(library: &[Frame], system: &[Frame]) {
    for (i, (one, other)) in library.iter().zip(system).enumerate() {
        assert_eq!(one, other, "frame {i} of {library:#x?}");
    }
    assert!(library.len() <= system.len() && system.len() <= library.len() + 1);
}

#[inline(never)]
fn deep(n: usize, then: &mut dyn FnMut()) -> usize {
    let mut words = [n; 20];
    std::hint::black_box(&mut words);
    if n == 0 {
        then();
        return 0;
    }
    words[n % 20] + deep(n - 1, then)
}

#[test]
fn walks_agree_with_the_system() {
    let code = Code::new();
    let mut frames = 0;
    deep(100, &mut || frames = compare_here(&code).len());
    assert!(frames > 100, "{frames}");
}

/// Through a library of the system that calls back.
#[test]
fn walks_cross_the_frames_of_libraries() {
    type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> i32;
    type Sort = unsafe extern "C" fn(*mut c_void, usize, usize, Compare);
    thread_local! {
        static SEEN: RefCell<Option<Vec<Frame>>> = const { RefCell::new(None) };
    }
    unsafe extern "C" fn order(_: *const c_void, _: *const c_void) -> i32 {
        SEEN.with_borrow_mut(|seen| {
            seen.get_or_insert_with(|| compare_here(&Code::new()));
        });
        0
    }
    // SAFETY: the C library's own function, with an array and such a function.
    unsafe {
        let library = LoadLibraryA(c"msvcrt.dll".as_ptr().cast());
        let sort = GetProcAddress(library, c"qsort".as_ptr().cast()).expect("it has that");
        let sort = std::mem::transmute::<unsafe extern "system" fn() -> isize, Sort>(sort);
        let mut numbers = [3, 2, 1, 5];
        sort(numbers.as_mut_ptr().cast(), 4, 4, order);
    }
    let frames = SEEN.take().expect("it was called");
    let code = Code::new();
    code.refresh_images();
    let snapshot = code.snapshot();
    let name = |frame: &Frame| snapshot.image(frame.pc - 1).map_or("", Image::name).to_lowercase();
    assert!(frames.iter().any(|frame| name(frame).ends_with("msvcrt.dll")));
}

/// At any instruction, prologues and epilogues included.
#[test]
fn walks_of_stopped_threads_agree_with_the_system() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static STACK_END: AtomicUsize = AtomicUsize::new(0);
    let code = Code::new();
    code.refresh_images();
    // Reading it takes memory, and the stopped thread may have the lock of that.
    code.snapshot().read_images().unwrap();
    let busy = std::thread::spawn(|| {
        let stack = ThreadStacks::current().unwrap().stack();
        STACK_END.store(stack.end, Ordering::Release);
        let mut sum = 0;
        // Relaxed: the thread just goes on until it sees it.
        while !STOP.load(Ordering::Relaxed) {
            sum += deep(5, &mut || drop(std::hint::black_box(format!("{sum}"))));
        }
        sum
    });
    while STACK_END.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let end = STACK_END.load(Ordering::Acquire);
    let handle = std::os::windows::io::AsRawHandle::as_raw_handle(&busy);
    let (mut places, mut seen, mut jumps) = (std::collections::HashSet::new(), 0, 0);
    let mut oldest = None;
    for _ in 0..2000 {
        let mut context = Context::new();
        let mut frames = [(0, 0); 64];
        let mut count = 0;
        let mut cache = RuleCache::fixed(4000);
        let snapshot = code.snapshot();
        let mut error = None;
        let mut system = [(0, 0); 64];
        // SAFETY: the thread lives, and stands still until it is resumed. Nothing between takes
        // memory or a lock.
        unsafe {
            assert_ne!(SuspendThread(handle), u32::MAX);
            if GetThreadContext(handle, &raw mut context.0) != 0 {
                let registers = RegisterSet::interrupted(&context.0);
                let memory = LiveMemory::new(registers.sp()..end);
                let mut trace = Unwinder::new(&snapshot, &mut cache, memory, (), registers);
                let walked = trace.for_each(|frame| {
                    frames[count] = (frame.pc, frame.sp);
                    count += 1;
                    if count < 64 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                error = walked.err();
                steps(context, end, &mut system);
            }
            ResumeThread(handle);
        }
        let exact = frames[0].0;
        assert_eq!(error, None, "from {exact:#x}: {:#x?}", &frames[..count]);
        if jumps_away(exact) {
            jumps += 1;
        } else {
            assert_eq!(frames[..count], system[..count], "from {exact:#x}");
        }
        // However it began, the oldest frames are the same.
        assert_eq!(*oldest.get_or_insert(frames[count - 1]), frames[count - 1]);
        places.insert(exact);
        seen += usize::from(count > 5);
    }
    STOP.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    let places = places.len();
    println!("{seen} walks from {places} places, {jumps} of them in epilogues that end in jumps");
    assert!(seen > 1000 && places > 20, "{seen} walks from {places} places");
}

/// Whether an epilogue that goes on there ends with a jump to another function. Windows knows such
/// ones, and wine 8 takes them for the function's body.
fn jumps_away(pc: usize) -> bool {
    let mut code = pc as *const u8;
    // SAFETY: a thread stands there, and an epilogue is read to its end, which is code as well.
    unsafe {
        match [*code, *code.add(1), *code.add(2)] {
            [0x48, 0x83, 0xc4] => code = code.add(4),
            [0x48, 0x81, 0xc4] => code = code.add(7),
            _ => {}
        }
        loop {
            match [*code, *code.add(1)] {
                [0x58..=0x5f, _] => code = code.add(1),
                [0x40..=0x4f, 0x58..=0x5f] => code = code.add(2),
                [0xe9 | 0xeb, _] | [0xff, 0x25] | [0x48..=0x4f, 0xff] => return true,
                _ => return false,
            }
        }
    }
}

/// Pcs and stack pointers by the system. Nothing is allocated.
fn steps(mut context: Context, end: usize, into: &mut [(usize, usize)]) {
    for place in into {
        let context = &mut context.0;
        if context.Rip == 0 || context.Rsp as usize + 8 > end {
            return;
        }
        *place = (context.Rip as usize, context.Rsp as usize);
        // SAFETY: as in `by_system`.
        unsafe {
            let (mut base, mut data, mut frame) = (0, ptr::null_mut(), 0);
            let entry = RtlLookupFunctionEntry(context.Rip, &raw mut base, ptr::null_mut());
            if entry.is_null() {
                context.Rip = *(context.Rsp as *const u64);
                context.Rsp += 8;
                continue;
            }
            let (data, frame) = (&raw mut data, &raw mut frame);
            RtlVirtualUnwind(0, base, context.Rip, entry, context, data, frame, ptr::null_mut());
        }
    }
}

/// From the handler of an exception, whose own frames lie above those of the interrupted function.
#[test]
fn handlers_of_exceptions_walk_what_was_interrupted() {
    static FRAMES: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "system" fn handler(exception: *mut EXCEPTION_POINTERS) -> i32 {
        // SAFETY: the system passes valid structures.
        let (record, context) =
            unsafe { (*(*exception).ExceptionRecord, &mut *(*exception).ContextRecord) };
        // An illegal instruction.
        if record.ExceptionCode as u32 != 0xc000_001d {
            return 0;
        }
        let code = Code::new();
        code.refresh_images();
        let stacks = ThreadStacks::current().unwrap();
        let registers = RegisterSet::interrupted(context);
        // SAFETY: this thread's own stack, from the interrupted frame on.
        let memory = unsafe { stacks.memory(registers.sp()) };
        let frames = by_library(&code, registers, memory);
        compare(&frames, &by_system(Context(*context), stacks.stack().end));
        FRAMES.store(frames.len(), Ordering::Relaxed);
        context.Rip += 2;
        -1
    }
    // SAFETY: such a handler, which goes on behind the instruction, of two bytes.
    unsafe {
        let added = AddVectoredExceptionHandler(1, Some(handler));
        deep(20, &mut || std::arch::asm!("ud2"));
        RemoveVectoredExceptionHandler(added);
    }
    assert!(FRAMES.load(Ordering::Relaxed) > 20);
}

#[test]
fn libraries_that_come_and_go_are_noticed() {
    let code = Code::new();
    assert!(code.refresh_images());
    // SAFETY: a library of the system, of which nothing is used.
    let library = unsafe { LoadLibraryA(c"d3dcompiler_47.dll".as_ptr().cast()) };
    assert!(!library.is_null());
    let at = library as usize + 0x1000;
    assert!(code.snapshot().image(at).is_none());
    assert!(code.refresh_images());
    let before = code.snapshot();
    assert!(before.image(at).unwrap().name().ends_with("d3dcompiler_47.dll"));
    let rule = before.rule(at).unwrap().unwrap().to_string();
    // SAFETY: as above.
    assert_ne!(unsafe { FreeLibrary(library) }, 0);
    assert!(code.refresh_images());
    assert!(code.snapshot().image(at).is_none());
    assert!(matches!(code.snapshot().rule(at), Ok(None)));
    // The older snapshot has a copy, but for the code of epilogues.
    assert_eq!(before.rule(at).unwrap().unwrap().to_string(), rule);
}

/// `push rbp; mov rbp, rsp; sub rsp, 32; call rcx; add rsp, 32; pop rbp; ret`
const CALLS: [u8; 16] = [
    0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0xff, 0xd1, 0x48, 0x83, 0xc4, 0x20, 0x5d, 0xc3,
];
/// What its prologue does.
const INFO: [u8; 12] = [1, 8, 3, 5, 8, 0x32, 4, 0x03, 1, 0x50, 0, 0];

/// Two copies of that code, and the address of the second one.
fn managed() -> (Region, extern "C-unwind" fn(extern "C-unwind" fn())) {
    // SAFETY: memory of our own, with code in it that calls its argument.
    unsafe {
        let pages = VirtualAlloc(ptr::null(), 4096, MEM_COMMIT, PAGE_EXECUTE_READWRITE);
        let start = pages as usize;
        ptr::copy_nonoverlapping(CALLS.as_ptr(), pages.cast(), 16);
        ptr::copy_nonoverlapping(CALLS.as_ptr(), pages.cast::<u8>().add(64), 16);
        let function = |start| Function { start, len: 16, name: "f".into(), ..Function::default() };
        let info = |start| FunctionUnwindInfo { start, len: 16, bytes: INFO.to_vec() };
        let region = Region {
            name: "managed".into(),
            start,
            len: 128,
            functions: vec![function(start), function(start + 64)],
            // In another order than that of addresses.
            unwind_info: vec![info(start + 64), info(start)],
            ..Region::default()
        };
        let second =
            std::mem::transmute::<usize, extern "C-unwind" fn(extern "C-unwind" fn())>(start + 64);
        (region, second)
    }
}

#[test]
fn the_system_walks_managed_code() {
    static CODE: std::sync::OnceLock<Code> = std::sync::OnceLock::new();
    static FRAMES: AtomicUsize = AtomicUsize::new(0);
    let code = CODE.get_or_init(Code::new);
    let (region, call) = managed();
    let range = region.start..region.start + region.len;
    let id = code.register(region).unwrap();
    extern "C-unwind" fn look() {
        FRAMES.store(compare_here(CODE.get().unwrap()).len(), Ordering::Relaxed);
    }
    call(look);
    assert!(FRAMES.load(Ordering::Relaxed) > 5);

    // Panics cross it, and backtraces.
    extern "C-unwind" fn panics() {
        let mut found = false;
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        found |= trace.contains("the_system_walks_managed_code");
        std::panic::resume_unwind(Box::new(found));
    }
    let caught = catch_unwind(AssertUnwindSafe(|| call(panics))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&true), "the backtrace crosses it");

    assert!(system_knows(range.start + 5) && system_knows(range.start + 69));
    code.unregister(id).unwrap();
    assert!(!system_knows(range.start + 5));
    let (region, _) = managed();
    let start = region.start;
    let silent = Region { announce: Announce::NONE, ..region };
    code.register(silent).unwrap();
    assert!(!system_knows(start + 5));
}

/// Whether the system's unwinder has information for the pc.
fn system_knows(pc: usize) -> bool {
    let mut base = 0;
    // SAFETY: looks the address up.
    !unsafe { RtlLookupFunctionEntry(pc as u64, &raw mut base, ptr::null_mut()) }.is_null()
}

/// What the prologue does, as CFI.
fn cfi(starts: [usize; 2]) -> Vec<u8> {
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 1 };
    let mut common = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
    common.add_instruction(CallFrameInstruction::Cfa(X86_64::RSP, 8));
    common.add_instruction(CallFrameInstruction::Offset(X86_64::RA, -8));
    let mut table = FrameTable::default();
    let common = table.add_cie(common);
    for start in starts {
        let mut function = FrameDescriptionEntry::new(Address::Constant(start as u64), 16);
        function.add_instruction(1, CallFrameInstruction::CfaOffset(16));
        function.add_instruction(1, CallFrameInstruction::Offset(X86_64::RBP, -16));
        function.add_instruction(4, CallFrameInstruction::CfaRegister(X86_64::RBP));
        table.add_fde(common, function);
    }
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).unwrap();
    section.0.into_vec()
}

#[test]
fn code_with_cfi_alone_is_walked_by_the_library_and_unknown_to_the_system() {
    static CODE: std::sync::OnceLock<Code> = std::sync::OnceLock::new();
    static FRAMES: std::sync::Mutex<Vec<Frame>> = std::sync::Mutex::new(Vec::new());
    let code = CODE.get_or_init(Code::new);
    let (region, call) = managed();
    let start = region.start;
    let eh_frame = cfi([start, start + 64]);
    code.register(Region { eh_frame, unwind_info: Vec::new(), ..region }).unwrap();
    extern "C-unwind" fn look() {
        let code = CODE.get().unwrap();
        code.refresh_images();
        let registers = RegisterSet::capture();
        let stacks = ThreadStacks::current().unwrap();
        // SAFETY: this thread's own stack, from this frame on.
        let memory = unsafe { stacks.memory(registers.sp()) };
        *FRAMES.lock().unwrap() = by_library(code, registers, &memory);
    }
    call(look);
    let through = std::mem::take(&mut *FRAMES.lock().unwrap());
    look();
    let beside = std::mem::take(&mut *FRAMES.lock().unwrap());
    let at = through.iter().position(|frame| frame.pc == start + 64 + 10).expect("its frame");
    // This test's function, at another place, and all older frames.
    assert_eq!(through[at + 2..], beside[at + 1..]);
    assert!(through.len() > at + 3);
    assert!(!system_knows(start + 5) && !system_knows(start + 69));
}

#[test]
fn managed_code_of_an_image_is_an_error_that_names_the_format() {
    let code = Code::new();
    let error = code.register_image(deep as *const () as usize, None).unwrap_err();
    let RegisterImageError::Image(ManagedImageError::Image(error)) = error else {
        panic!("{error}");
    };
    assert!(matches!(&error, ImageError::MapsOfFormat { image } if image.ends_with(".exe")));
    assert!(
        error.to_string().ends_with("is in Microsoft's format, of which no stack maps are read")
    );
}
