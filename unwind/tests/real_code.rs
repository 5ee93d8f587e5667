//! Registered code that runs: the system's unwinder, panics and gdb cross its frames.

mod support;

use std::ffi::c_void;
use std::process::Command;

use stackmark_unwind::{Code, Function, Region, RegionId};
use support::{eh_frame, frame_record};

/// `push rbp; mov rbp, rsp; mov rax, imm64; call rax; pop rbp; ret`, twice: `outer` calls `inner` calls a native
/// function.
struct Jit {
    code: Code,
    id: RegionId,
    start: usize,
}

const PAGE: usize = 4096;
const INNER: usize = 0x40;
const LEN: usize = 18;

type Native = extern "C-unwind" fn();

impl Jit {
    fn new(callee: Native, name: &str) -> Jit {
        // SAFETY: a fresh mapping.
        let page = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        let start = page as usize;
        for (at, target) in [(0, start + INNER), (INNER, callee as *const () as usize)] {
            let mut code = vec![0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8];
            code.extend(target.to_le_bytes());
            code.extend([0xff, 0xd0, 0x5d, 0xc3]);
            assert_eq!(code.len(), LEN);
            // SAFETY: the page is ours, writable, and larger than both functions.
            unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), (start + at) as *mut u8, LEN) };
        }
        let functions = [("outer", 0), ("inner", INNER)];
        let code = Code::new();
        let id = code
            .register(Region {
                name: name.into(),
                start,
                len: PAGE,
                eh_frame: eh_frame(functions.map(|(_, at)| (start + at, LEN as u32, frame_record()))),
                functions: functions
                    .map(|(function, at)| Function {
                        name: format!("{name}_{function}"),
                        start: start + at,
                        len: LEN,
                        ..Function::default()
                    })
                    .into(),
                ..Region::default()
            })
            .unwrap();
        Jit { code, id, start }
    }

    fn run(&self) {
        // SAFETY: `outer` is a complete function of that type.
        let outer = unsafe { std::mem::transmute::<usize, Native>(self.start) };
        outer();
        // Keeps the call from becoming a jump.
        std::hint::black_box(self);
    }
}

#[repr(C)]
struct Context(c_void);

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: extern "C" fn(*mut Context, *mut c_void) -> i32, data: *mut c_void) -> i32;
    fn _Unwind_GetIP(context: *mut Context) -> usize;
}

extern "C" fn visit(context: *mut Context, data: *mut c_void) -> i32 {
    // SAFETY: `pcs` passes a vector, and the unwinder a valid context.
    unsafe { (*data.cast::<Vec<usize>>()).push(_Unwind_GetIP(context)) };
    0
}

fn pcs() -> Vec<usize> {
    let mut pcs: Vec<usize> = Vec::new();
    // SAFETY: `visit` is such a callback, and expects a vector.
    unsafe { _Unwind_Backtrace(visit, (&raw mut pcs).cast()) };
    pcs
}

thread_local! {
    static SEEN: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
}

extern "C-unwind" fn look() {
    SEEN.with(|seen| *seen.borrow_mut() = pcs());
}

extern "C-unwind" fn panics() {
    panic!("through managed frames");
}

#[test]
fn a_system_backtrace_crosses_managed_frames_and_goes_on_behind_them() {
    let jit = Jit::new(look, "traced");
    let depth = pcs().len();
    jit.run();
    let seen = SEEN.take();
    let managed: Vec<usize> = seen.iter().filter(|pc| (jit.start..jit.start + PAGE).contains(pc)).copied().collect();
    assert_eq!(managed, [jit.start + INNER + 16, jit.start + 16]);
    assert!(seen.len() > depth, "the frames of the test itself are seen too");
    let snapshot = jit.code.snapshot();
    assert_eq!(snapshot.function(managed[0] - 1).unwrap().name, "traced_inner");
    drop(snapshot);
    jit.code.unregister(jit.id).unwrap();
    jit.run();
    assert!(SEEN.take().len() < seen.len(), "the system's unwinder has forgotten the region");
}

#[test]
fn a_panic_crosses_managed_frames() {
    let jit = Jit::new(panics, "crossed");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| jit.run()));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"through managed frames"));
}

extern "C-unwind" fn gdb_stops_here() {
    std::hint::black_box(());
}

#[test]
#[ignore = "the program that gdb_names_managed_frames runs under gdb"]
fn inferior() {
    // One region more on either side, which is gone when gdb looks.
    let before = Jit::new(look, "before");
    let jit = Jit::new(gdb_stops_here, "shown");
    let after = Jit::new(look, "after");
    before.code.unregister(before.id).unwrap();
    after.code.unregister(after.id).unwrap();
    jit.run();
    println!("inferior done");
}

#[test]
fn gdb_names_managed_frames_and_walks_past_them() {
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: gdb is not installed");
        return;
    }
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set debuginfod enabled off"])
        .args(["-ex", "break real_code::gdb_stops_here", "-ex", "run", "-ex", "backtrace 6", "-ex", "continue"])
        .arg("--args")
        .arg(std::env::current_exe().unwrap())
        .args(["inferior", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let frame = |number: usize| {
        let start = format!("#{number} ");
        text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no frame {number} in:\n{text}"))
    };
    assert!(frame(0).contains("gdb_stops_here"), "{text}");
    assert!(frame(1).contains("in shown_inner ()"), "{text}");
    assert!(frame(2).contains("in shown_outer ()"), "{text}");
    assert!(frame(3).contains("real_code::"), "{text}");
    assert!((3..6).any(|number| frame(number).contains("real_code::inferior")), "{text}");
    assert!(text.contains("inferior done"), "{text}");
}
