//! The other unwinders.

use std::ffi::{CStr, c_void};
use std::ops::ControlFlow;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module, Unwinder,
};
use gimli::X86_64;
use stackmark_unwind::RegisterSet;

use super::Sum;

type Bytes = &'static [u8];

/// framehop, with the images of this process.
pub(crate) struct Framehop(UnwinderX86_64<Bytes, MayAllocateDuringUnwind>);

pub(crate) type FramehopCache = CacheX86_64<MayAllocateDuringUnwind>;

pub(crate) fn framehop_cache() -> FramehopCache {
    CacheX86_64::new()
}

impl Framehop {
    pub(crate) fn new() -> Framehop {
        let mut unwinder = UnwinderX86_64::new();
        // SAFETY: `add` has that type, and gets the unwinder.
        unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut unwinder).cast()) };
        Framehop(unwinder)
    }

    #[inline(never)]
    pub(crate) fn walk(&self, cache: &mut FramehopCache, limit: usize) -> Sum {
        let context = RegisterSet::capture();
        let register = |register| context.get(register).expect("captured") as u64;
        let mut registers = UnwindRegsX86_64::new(
            register(X86_64::RA),
            register(X86_64::RSP),
            register(X86_64::RBP),
        );
        let mut read = |address: u64| -> Result<u64, ()> {
            // SAFETY: framehop asks for words of this thread's stack.
            Ok(unsafe { *(address as *const u64) })
        };
        let mut address = FrameAddress::from_instruction_pointer(register(X86_64::RA));
        let mut sum = Sum::default();
        while sum.frames < limit {
            let Ok(Some(found)) = self.0.unwind_frame(address, &mut registers, cache, &mut read)
            else {
                break;
            };
            sum.add(found as usize);
            address = FrameAddress::from_return_address(found).expect("a return address");
        }
        sum
    }
}

/// Adds an image with its `.eh_frame` as it lies in memory.
unsafe extern "C" fn add(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    unwinder: *mut c_void,
) -> i32 {
    // SAFETY: the loader and `new` pass these.
    let (info, unwinder) = unsafe {
        (&*info, &mut *unwinder.cast::<UnwinderX86_64<Bytes, MayAllocateDuringUnwind>>())
    };
    // SAFETY: the loader's own array.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let base = info.dlpi_addr;
    let range =
        |header: &libc::Elf64_Phdr| base + header.p_vaddr..base + header.p_vaddr + header.p_memsz;
    let loads = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let Some(table) =
        headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME).map(range)
    else {
        return 0;
    };
    let (Some(first), Some(last)) = (loads().next().map(range), loads().next_back().map(range))
    else {
        return 0;
    };
    let Some(text) = loads().find(|header| header.p_flags & libc::PF_X != 0).map(range) else {
        return 0;
    };
    // SAFETY: a loaded segment, which this process never unloads.
    let bytes = |range: std::ops::Range<u64>| unsafe {
        std::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize)
    };
    let header = bytes(table.clone());
    assert_eq!(header[1], 0x1b, "a pc-relative pointer");
    let offset = i32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
    let start = (table.start + 4).wrapping_add_signed(offset.into());
    let segment = loads()
        .map(range)
        .find(|segment| segment.contains(&start))
        .expect("the segment of `.eh_frame`");
    let frames = bytes(start..segment.end);
    let mut len = 0;
    while let Some(entry) = frames.get(len..len + 4) {
        len += 4;
        match u32::from_le_bytes(entry.try_into().expect("four bytes")) {
            0 => break,
            entry => len += entry as usize,
        }
    }
    let relative = |range: std::ops::Range<u64>| range.start - base..range.end - base;
    unwinder.add_module(Module::new(
        String::new(),
        first.start..last.end,
        base,
        ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: Some(relative(text)),
            eh_frame_svma: Some(relative(start..start + len as u64)),
            eh_frame: Some(&frames[..len]),
            eh_frame_hdr_svma: Some(relative(table)),
            eh_frame_hdr: Some(header),
            ..Default::default()
        },
    ));
    0
}

#[repr(C)]
struct Opaque(c_void);

unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut Opaque, *mut c_void) -> i32,
        data: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut Opaque) -> usize;
}

type Visit<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

extern "C" fn visit(context: *mut Opaque, data: *mut c_void) -> i32 {
    // SAFETY: `libgcc` passes a callback, and the unwinder a valid context.
    let flow = unsafe { (*data.cast::<Visit<'_>>())(_Unwind_GetIP(context)) };
    if flow.is_break() { 4 } else { 0 }
}

fn libgcc(mut each: Visit<'_>) {
    // SAFETY: `visit` is such a callback, and expects this.
    unsafe { _Unwind_Backtrace(visit, (&raw mut each).cast()) };
}

#[inline(never)]
pub(crate) fn walk_libgcc(limit: usize) -> Sum {
    let mut sum = Sum::default();
    libgcc(&mut |pc| {
        sum.add(pc);
        if sum.frames == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    sum
}

pub(crate) fn libgcc_frames(limit: usize) -> Vec<usize> {
    let mut frames = Vec::new();
    libgcc(&mut |pc| {
        frames.push(pc);
        if frames.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    frames
}

#[inline(never)]
pub(crate) fn walk_backtrace(limit: usize) -> Sum {
    let mut sum = Sum::default();
    // SAFETY: no other thread traces.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            sum.add(frame.ip() as usize);
            sum.frames < limit
        });
    }
    sum
}

type Get = unsafe extern "C" fn(*mut c_void) -> i32;
type Init = unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32;
type GetRegister = unsafe extern "C" fn(*mut c_void, i32, *mut u64) -> i32;
type Backtrace = unsafe extern "C" fn(*mut *mut c_void, i32) -> i32;

/// libunwind, opened at run time, so that its `_Unwind_*` do not replace libgcc's.
pub(crate) struct Libunwind {
    get_context: Get,
    init_local: Init,
    step: Get,
    get_register: GetRegister,
    backtrace: Backtrace,
}

impl Libunwind {
    pub(crate) fn load() -> Option<Libunwind> {
        // SAFETY: libunwind's initialisers need nothing, and its functions have these types.
        unsafe {
            let library =
                libc::dlopen(c"libunwind.so.8".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if library.is_null() {
                println!("libunwind is not installed: left out");
                return None;
            }
            let symbol = |name: &CStr| {
                let symbol = libc::dlsym(library, name.as_ptr());
                assert!(!symbol.is_null(), "{name:?}");
                symbol
            };
            let space = *symbol(c"_ULx86_64_local_addr_space").cast::<*mut c_void>();
            let set_policy: unsafe extern "C" fn(*mut c_void, i32) -> i32 =
                std::mem::transmute(symbol(c"_ULx86_64_set_caching_policy"));
            // A cache for each thread is libunwind's fastest setting.
            set_policy(space, 2);
            Some(Libunwind {
                get_context: std::mem::transmute::<*mut c_void, Get>(symbol(
                    c"_Ux86_64_getcontext",
                )),
                init_local: std::mem::transmute::<*mut c_void, Init>(symbol(
                    c"_ULx86_64_init_local",
                )),
                step: std::mem::transmute::<*mut c_void, Get>(symbol(c"_ULx86_64_step")),
                get_register: std::mem::transmute::<*mut c_void, GetRegister>(symbol(
                    c"_ULx86_64_get_reg",
                )),
                backtrace: std::mem::transmute::<*mut c_void, Backtrace>(symbol(c"unw_backtrace")),
            })
        }
    }

    #[inline(never)]
    pub(crate) fn step(&self, limit: usize) -> Sum {
        let mut sum = Sum::default();
        let (mut context, mut cursor) = ([0_u64; 256], [0_u64; 256]);
        // SAFETY: context and cursor are larger than libunwind's.
        unsafe {
            (self.get_context)(context.as_mut_ptr().cast());
            (self.init_local)(cursor.as_mut_ptr().cast(), context.as_mut_ptr().cast());
            while sum.frames < limit && (self.step)(cursor.as_mut_ptr().cast()) > 0 {
                let mut pc = 0;
                (self.get_register)(cursor.as_mut_ptr().cast(), 16, &raw mut pc);
                sum.add(pc as usize);
            }
        }
        sum
    }

    #[inline(never)]
    pub(crate) fn backtrace(&self, limit: usize) -> Sum {
        let mut frames = vec![std::ptr::null_mut(); limit];
        // SAFETY: the buffer has room for so many.
        let count = unsafe { (self.backtrace)(frames.as_mut_ptr(), limit as i32) };
        let mut sum = Sum::default();
        frames[..count as usize].iter().for_each(|frame| sum.add(*frame as usize));
        sum
    }
}
