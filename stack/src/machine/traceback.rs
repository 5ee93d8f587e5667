//! Tracebacks through every stack of a thread, with managed and native frames in their true order,
//! and the end of a process by an unrecovered panic.

use super::caller::Caller;
use crate::os;
use crate::runtime::Runtime;
use parking_lot::Mutex;
use stackmark_asm::unwinding::{context_lookup_pc, context_pc};
use stackmark_asm::{self as asm, barrier};
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::ops::ControlFlow;

/// A traceback shows this many of the youngest and of the oldest frames, and counts those between.
const SHOWN: usize = 50;

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        visit: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
}

/// Calls `visit` for each frame of this thread, on all its stacks, youngest first, until it breaks.
/// `visit` gets the pc to look the frame up by. Frames of the assembly, which switch stacks, and
/// barrier stubs are left out.
pub fn full_backtrace(mut visit: impl FnMut(usize) -> ControlFlow<()>) {
    type Visit<'v> = &'v mut dyn FnMut(usize) -> ControlFlow<()>;
    unsafe extern "C-unwind" fn each(context: *mut c_void, visit: *mut c_void) -> c_int {
        const GO_ON: c_int = 0;
        const BREAK: c_int = 5;
        // SAFETY: the unwinder's context, and our own closure.
        let (pc, at, visit) = unsafe {
            let (pc, at) = (context_pc(context), context_lookup_pc(context));
            (pc, at, &mut *(visit as *mut Visit<'_>))
        };
        let ours = pc == asm::native_return_pc()
            || [
                asm::system_call_range(),
                asm::callback_range(),
                asm::enter_range(),
                asm::call_native_range(),
                asm::entry_range(),
                barrier::pool(),
            ]
            .iter()
            .any(|range| range.contains(&at));
        match ours || pc == 0 || visit(at).is_continue() {
            true => GO_ON,
            false => BREAK,
        }
    }
    let mut visit: Visit<'_> = &mut visit;
    // SAFETY: the closure outlives the call.
    unsafe { _Unwind_Backtrace(each, (&raw mut visit).cast()) };
}

/// A frame's function and where its source is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    function: String,
    source: Option<(String, u32)>,
}

impl Line {
    /// The functions at a pc. The runtime knows managed code; debugging
    /// information knows native code.
    fn of(runtime: &Runtime, pc: usize) -> Vec<Line> {
        if let Some(function) = runtime.code.snapshot().function(pc) {
            return vec![Line {
                function: function.name.to_owned(),
                source: runtime.host.source(pc),
            }];
        }
        let mut lines = Vec::new();
        backtrace::resolve(pc as *mut c_void, |symbol| {
            lines.push(Line {
                function: symbol
                    .name()
                    .map_or_else(|| format!("{pc:#x}"), |name| format!("{name:#}")),
                source: symbol
                    .filename()
                    .map(|f| (f.display().to_string(), symbol.lineno().unwrap_or(0))),
            });
        });
        if lines.is_empty() {
            lines.push(Line { function: format!("{pc:#x}"), source: None });
        }
        lines
    }

    fn write(&self, into: &mut String) {
        // Writing to a string does not fail.
        let _ = writeln!(into, "{}(...)", self.function);
        if let Some((file, line)) = &self.source {
            let _ = writeln!(into, "\t{file}:{line}");
        }
    }
}

/// `goroutine N [running]:` and the functions of this thread, innermost first, from the youngest
/// managed frame to the oldest frame of all, with file and line where these are known. Native
/// frames younger than all managed ones are left out: they are the panic's own machinery.
pub fn traceback(runtime: &Runtime) -> String {
    let mut text = String::new();
    // SAFETY: used within this function alone.
    if let Some(caller) = unsafe { Caller::try_current() } {
        let _ = writeln!(text, "goroutine {} [running]:", caller.goroutine().id());
    } else {
        text.push_str("goroutine 0 [idle]:\n");
    }
    let mut pcs = Vec::new();
    let mut begun = false;
    let snapshot = runtime.code.snapshot();
    full_backtrace(|pc| {
        begun |= snapshot.function(pc).is_some();
        if begun {
            pcs.push(pc);
        }
        ControlFlow::Continue(())
    });
    drop(snapshot);
    write_lines(runtime, &pcs, &mut text);
    text
}

/// Writes the functions at these pcs. Where there are many, those in the middle are elided.
pub(crate) fn write_lines(runtime: &Runtime, pcs: &[usize], text: &mut String) {
    let elided = pcs.len().saturating_sub(2 * SHOWN);
    for (i, &pc) in pcs.iter().enumerate() {
        if elided > 0 && i == SHOWN {
            let _ = writeln!(text, "...{elided} frames elided...");
        }
        if elided == 0 || i < SHOWN || i >= SHOWN + elided {
            Line::of(runtime, pc).iter().for_each(|line| line.write(text));
        }
    }
}

/// Ends the process after an unrecovered panic: writes `panic: MESSAGE` and the traceback to
/// standard error, and exits with status 2. Called on any thread and stack. Runs no destructors,
/// because other threads run until the end. If several threads call it, the first one reports.
pub fn die_of_panic(runtime: &Runtime, message: &str) -> ! {
    static ENDING: Mutex<()> = Mutex::new(());
    std::mem::forget(ENDING.lock());
    let text = format!("panic: {message}\n\n{}", traceback(runtime));
    os::write_to_stderr(text.as_bytes());
    os::exit_now(2)
}
