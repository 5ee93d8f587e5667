//! Windows: the program's import table, by which it calls the system, leads here.

use crate::{ATTEMPTS, MAPPED, MEMORY, Refusal, THREADS};
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use windows_sys::Win32::Foundation::{
    CloseHandle, ERROR_NOT_ENOUGH_MEMORY, HANDLE, INVALID_HANDLE_VALUE, SetLastError,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::LibraryLoader::GetModuleHandleW;
use windows_sys::Win32::System::Memory::{
    MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, VirtualProtect,
};

/// What a thread that is refused is an error of.
pub(crate) const NO_THREAD: std::io::ErrorKind = std::io::ErrorKind::OutOfMemory;

/// The system's functions, by which ours go on.
static CREATE_THREAD: AtomicUsize = AtomicUsize::new(0);
static ALLOC: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);

/// Lets the program call the functions here.
pub(crate) fn stand_in_front() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let create_thread = create_thread as *const () as usize;
        replace(c"CreateThread", create_thread, &CREATE_THREAD);
        replace(c"VirtualFree", free as *const () as usize, &FREE);
        replace(c"VirtualAlloc", alloc as *const () as usize, &ALLOC);
    });
}

/// Writes `ours` where the program has imported `name`, and the address that was there to `real`.
fn replace(name: &CStr, ours: usize, real: &AtomicUsize) {
    // SAFETY: the loader has mapped the image and read its headers. The places are as its format
    // says. Writes change words that only calls of the functions read.
    unsafe {
        let base = GetModuleHandleW(ptr::null()) as usize;
        let word = |at: usize| *((base + at) as *const u32) as usize;
        let optional_header = word(0x3c) + 24;
        // The second entry of the directory, which lies at 112.
        let mut import = word(optional_header + 112 + 8);
        // A library's imports: where the names are, three more words, where the addresses are.
        while word(import + 12) != 0 {
            let (mut names, mut addresses) = (word(import), base + word(import + 16));
            while *((base + names) as *const usize) != 0 {
                let at = *((base + names) as *const usize);
                // Not a number, and behind a hint.
                if at >> 63 == 0 && CStr::from_ptr((base + at + 2) as *const _) == name {
                    let mut before = 0;
                    let place = addresses as *mut usize;
                    assert_ne!(VirtualProtect(place.cast(), 8, PAGE_READWRITE, &raw mut before), 0);
                    real.store(place.replace(ours), SeqCst);
                }
                (names, addresses) = (names + 8, addresses + 8);
            }
            import += 20;
        }
    }
    assert_ne!(real.load(SeqCst), 0, "nothing calls {name:?}");
}

/// Whether the call is refused. If so, says why.
fn refuses(refusal: &Refusal) -> bool {
    let refuses = refusal.refuses();
    if refuses {
        // SAFETY: this thread's own word.
        unsafe { SetLastError(ERROR_NOT_ENOUGH_MEMORY) };
    }
    refuses
}

type CreateThread = unsafe extern "system" fn(
    *const c_void,
    usize,
    *const c_void,
    *const c_void,
    u32,
    *mut u32,
) -> HANDLE;

/// # Safety
/// As the system's.
unsafe extern "system" fn create_thread(
    attributes: *const c_void,
    stack: usize,
    start: *const c_void,
    argument: *const c_void,
    flags: u32,
    number: *mut u32,
) -> HANDLE {
    ATTEMPTS.fetch_add(1, SeqCst);
    if refuses(&THREADS) {
        return ptr::null_mut();
    }
    // SAFETY: the function of that name, with its arguments.
    unsafe {
        let real = std::mem::transmute::<usize, CreateThread>(CREATE_THREAD.load(SeqCst));
        real(attributes, stack, start, argument, flags, number)
    }
}

type Alloc = unsafe extern "system" fn(*const c_void, usize, u32, u32) -> *mut c_void;

/// # Safety
/// As the system's.
unsafe extern "system" fn alloc(
    at: *const c_void,
    len: usize,
    kind: u32,
    protection: u32,
) -> *mut c_void {
    if refuses(&MEMORY) {
        return ptr::null_mut();
    }
    // SAFETY: the function of that name, with its arguments.
    let at = unsafe {
        std::mem::transmute::<usize, Alloc>(ALLOC.load(SeqCst))(at, len, kind, protection)
    };
    if !at.is_null() && kind & MEM_RESERVE != 0 {
        MAPPED.fetch_add(1, Relaxed);
    }
    at
}

type Free = unsafe extern "system" fn(*mut c_void, usize, u32) -> i32;

/// # Safety
/// As the system's.
unsafe extern "system" fn free(at: *mut c_void, len: usize, kind: u32) -> i32 {
    // SAFETY: the function of that name, with its arguments.
    let freed = unsafe { std::mem::transmute::<usize, Free>(FREE.load(SeqCst))(at, len, kind) };
    if freed != 0 && kind == MEM_RELEASE {
        MAPPED.fetch_sub(1, Relaxed);
    }
    freed
}

/// How many threads the process has.
pub(crate) fn threads() -> usize {
    let size = size_of::<THREADENTRY32>() as u32;
    let mut entry = THREADENTRY32 { dwSize: size, ..THREADENTRY32::default() };
    let mut count = 0;
    // SAFETY: the system writes the structure, which says how large it is.
    unsafe {
        let all = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
        assert_ne!(all, INVALID_HANDLE_VALUE);
        let mut is_one = Thread32First(all, &raw mut entry);
        while is_one != 0 {
            count += usize::from(entry.th32OwnerProcessID == std::process::id());
            is_one = Thread32Next(all, &raw mut entry);
        }
        CloseHandle(all);
    }
    count
}
