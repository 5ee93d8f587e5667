//! Linux: the images that the loader has mapped.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arch::ProgramHeader;

/// The types of program headers that matter to unwinding.
pub(crate) use libc::{PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE};

/// Where distributions put separate debug files.
pub(crate) const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// An image, as the loader has mapped it, while the loader's lock is held.
pub(crate) struct MappedImage<'a> {
    /// What the loader has added to the addresses in the image's file.
    pub(crate) base: usize,
    pub(crate) headers: &'a [ProgramHeader],
    info: &'a libc::dl_phdr_info,
}

impl<'a> MappedImage<'a> {
    /// # Safety
    ///
    /// `info` is what the loader passes to a callback that is running for all of `'a`, or says the
    /// same of memory as the loader does: its readable segments of type [`PT_LOAD`] are mapped, and
    /// nothing writes to those that are not writable.
    pub(crate) unsafe fn new(info: &'a libc::dl_phdr_info) -> MappedImage<'a> {
        let headers = match info.dlpi_phdr.is_null() {
            true => &[],
            // SAFETY: the loader's own array of program headers, valid for the call.
            false => unsafe {
                std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
            },
        };
        MappedImage { base: info.dlpi_addr as usize, headers, info }
    }

    /// The path by which the loader knows it; empty for the program itself.
    pub(crate) fn path(&self) -> String {
        match self.info.dlpi_name.is_null() {
            true => String::new(),
            // SAFETY: the loader's own string, valid for the callback, that is for `'a`.
            false => unsafe { CStr::from_ptr(self.info.dlpi_name) }.to_string_lossy().into_owned(),
        }
    }

    /// How many images the loader has added and removed so far.
    pub(crate) fn generation(&self) -> (u64, u64) {
        (self.info.dlpi_adds, self.info.dlpi_subs)
    }

    /// Where its segments of a type lie. One that wraps around the address space is nowhere: the
    /// loader maps no such segment.
    pub(crate) fn segments(&self, kind: u32) -> impl Iterator<Item = Range<usize>> {
        let of_kind = self.headers.iter().filter(move |header| header.p_type == kind);
        of_kind.filter_map(|header| self.place(header))
    }

    /// Where a segment lies. Bases may be negative, so the start wraps. The end does not.
    fn place(&self, header: &ProgramHeader) -> Option<Range<usize>> {
        let start = self.base.wrapping_add(header.p_vaddr as usize);
        Some(start..start.checked_add(header.p_memsz as usize)?)
    }

    /// Where its executable segments lie, ascending.
    pub(crate) fn code(&self) -> Vec<Range<usize>> {
        let executable = self
            .headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_flags & libc::PF_X != 0);
        let mut code: Vec<Range<usize>> =
            executable.filter_map(|header| self.place(header)).collect();
        code.sort_by_key(|range| range.start);
        code
    }

    /// The bytes from `start` to the end of the segment that holds it. `None` if no segment that
    /// can be read does.
    pub(crate) fn rest(&self, start: usize) -> Option<Cow<'a, [u8]>> {
        let (segment, _) = self.readable(start)?;
        self.bytes(start..segment.end)
    }

    /// The bytes in `range`. `None` unless one segment that can be read holds all of them. Those of
    /// a writable segment are copied: other threads may write beside them.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<Cow<'a, [u8]>> {
        let (segment, writable) = self.readable(range.start)?;
        let len = range.end.checked_sub(range.start)?;
        // The loader maps no more than that. A slice may not be longer.
        if range.end > segment.end || isize::try_from(len).is_err() {
            return None;
        }
        if writable {
            let byte = |address: usize| {
                // SAFETY: the byte lies in a segment that the loader has mapped, readable and
                // writable, and that stays mapped while the loader's lock is held, that is for
                // `'a`. An atomic load allows for other threads' stores. Relaxed: what tables of
                // the image lie here, the loader wrote before it made the image known.
                unsafe { AtomicU8::from_ptr(address as *mut u8) }.load(Ordering::Relaxed)
            };
            return Some(range.map(byte).collect());
        }
        // SAFETY: the bytes lie in one segment that the loader has mapped, readable and not
        // writable, so nothing changes them. It stays so while the loader's lock is held, which is
        // during the callback, that is for `'a`. The length was checked above.
        Some(Cow::Borrowed(unsafe { std::slice::from_raw_parts(range.start as *const u8, len) }))
    }

    /// The loaded segment that holds `address`, if it can be read, and whether it can be written.
    fn readable(&self, address: usize) -> Option<(Range<usize>, bool)> {
        let loaded = self.headers.iter().filter(|header| {
            header.p_type == PT_LOAD && header.p_flags & libc::PF_R != 0 && header.p_memsz != 0
        });
        let mut places = loaded
            .filter_map(|header| Some((self.place(header)?, header.p_flags & libc::PF_W != 0)));
        places.find(|(segment, _)| segment.contains(&address))
    }
}

/// Calls `each` for every image until it yields true. The loader's lock is held meanwhile.
pub(crate) fn for_each_image<F: FnMut(&MappedImage<'_>) -> bool>(mut each: F) {
    unsafe extern "C" fn call<F: FnMut(&MappedImage<'_>) -> bool>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut c_void,
    ) -> i32 {
        // SAFETY: `for_each_image` passes a callback of this type, which has no other reference
        // during the call; the loader passes a valid structure, and keeps the image mapped while
        // the callback runs.
        let (each, info) = unsafe { (&mut *data.cast::<F>(), &*info) };
        // SAFETY: as above.
        let image = unsafe { MappedImage::new(info) };
        i32::from(each(&image))
    }
    // SAFETY: `call` has the type that `dl_iterate_phdr` calls, a panic in it aborts, and `each`
    // outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut each).cast()) };
}

/// The stack of the calling thread, from its lowest address on.
pub(crate) fn thread_stack() -> io::Result<Range<usize>> {
    // SAFETY: the first call initialises the attributes, the second reads them, and they are
    // destroyed once.
    unsafe {
        let mut attributes = std::mem::zeroed();
        let error = libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let (mut start, mut size) = (std::ptr::null_mut(), 0);
        let error =
            libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        match error {
            0 => Ok(start as usize..start as usize + size),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The calling thread's stack for signal handlers, if it has one.
pub(crate) fn signal_stack() -> Option<Range<usize>> {
    // SAFETY: zero bytes are a valid structure, which the call fills; nothing is set.
    let stack = unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(std::ptr::null(), &raw mut stack) != 0 {
            return None;
        }
        stack
    };
    let start = stack.ss_sp as usize;
    (stack.ss_flags & libc::SS_DISABLE == 0 && start != 0).then(|| start..start + stack.ss_size)
}

/// The address to which the function of a new `ucontext` returns: behind it there is no caller. Its
/// CFI does not say so, and at the byte before it lies another function, or none. `None` if the
/// system has no such contexts.
#[cfg(target_env = "gnu")]
pub(crate) fn context_end() -> Option<usize> {
    use std::mem::MaybeUninit;
    use std::sync::OnceLock;

    use crate::arch::{CALL_PUSHES, RETURN_ADDRESS, without_signature};
    use crate::registers::RegisterSet;

    // Not in the crate `libc` for every architecture.
    unsafe extern "C" {
        fn getcontext(context: *mut libc::ucontext_t) -> libc::c_int;
        fn makecontext(
            context: *mut libc::ucontext_t,
            function: extern "C" fn(),
            arguments: libc::c_int,
            ...
        );
    }
    extern "C" fn never() {}
    static END: OnceLock<Option<usize>> = OnceLock::new();
    *END.get_or_init(|| {
        let mut stack = [0_usize; 1024];
        let mut context = MaybeUninit::<libc::ucontext_t>::zeroed();
        // SAFETY: the context is filled before it is read, and gets a stack that outlives it. It is
        // never switched to.
        let registers = unsafe {
            if getcontext(context.as_mut_ptr()) != 0 {
                return None;
            }
            let context = context.assume_init_mut();
            context.uc_stack.ss_sp = stack.as_mut_ptr().cast();
            context.uc_stack.ss_size = size_of_val(&stack);
            context.uc_link = std::ptr::null_mut();
            makecontext(context, never, 0);
            RegisterSet::interrupted(context)
        };
        if CALL_PUSHES == 0 {
            return registers.get(RETURN_ADDRESS).map(without_signature);
        }
        let offset = registers.sp().checked_sub(stack.as_ptr() as usize)?;
        std::hint::black_box(&stack).get(offset / size_of::<usize>()).copied()
    })
}

/// This C library has no such contexts.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn context_end() -> Option<usize> {
    None
}

/// The eight bytes at an address of this process, which need not be mapped. May be called in a
/// signal handler.
pub(crate) fn read_code(address: usize) -> Option<u64> {
    let mut word = 0_u64;
    let size = size_of_val(&word);
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: size };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: size };
    // SAFETY: the kernel writes the word or fails; it reads whatever is mapped. Then the same
    // through a pipe, for a system without the first call: its ends are closed where they were
    // opened. `/proc/self/mem` has other addresses where a program plays the processor.
    unsafe {
        let read = libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0);
        if read == size as isize {
            return Some(word);
        }
        let mut ends = [0; 2];
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return None;
        }
        let written = libc::write(ends[1], address as *const c_void, size);
        let read = libc::read(ends[0], (&raw mut word).cast(), size);
        for end in ends {
            libc::close(end);
        }
        (written == size as isize && read == written).then_some(word)
    }
}

/// Reads bytes of this process, which need not be mapped. Yields how many could be read. May be
/// called in a signal handler.
pub(crate) fn read_bytes(address: usize, into: &mut [u8]) -> usize {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
    // SAFETY: the kernel writes at most as many bytes as `into` has; it reads whatever is mapped.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    if read > 0 {
        return read.cast_unsigned();
    }
    // A system without that call.
    let words = into.chunks_mut(8).zip((address..).step_by(8));
    let mut len = 0;
    for (bytes, address) in words {
        let Some(word) = read_code(address) else { break };
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        len += bytes.len();
    }
    len
}

/// The path of the running program; `None` if the system does not say.
pub(crate) fn program_path() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/exe").ok()
}
