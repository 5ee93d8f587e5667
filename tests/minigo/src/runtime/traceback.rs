//! Tracebacks: what a goroutine is doing, function by function, with the places in the source.

use super::host;
use crate::code::Role;
use crate::os;
use stackmark_cranelift::{FuncId, Placed, Program};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::OnceLock;

/// Frames that a traceback shows at most.
const SHOWN: usize = 100;

/// What is known of the program's machine code.
pub(crate) struct Functions {
    program: Program,
    /// By the order of the program's functions.
    roles: Vec<Role>,
    file: String,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Makes the program's functions known.
pub(crate) fn set_program(program: Program, roles: &HashMap<FuncId, Role>, file: String) {
    let role = |f: &Placed| match f.makes_room {
        true => Role::Wrapper,
        false => roles.get(&f.id).copied().unwrap_or_default(),
    };
    let roles = program.functions().iter().map(role).collect();
    let _ = FUNCTIONS.set(Functions { program, roles, file });
}

/// The function of the program that has an instruction at `at`, and its role.
fn function(at: usize) -> Option<(&'static Placed, Role)> {
    let Functions { program, roles, .. } = FUNCTIONS.get()?;
    let index = program.function_index(at)?;
    Some((&program.functions()[index], roles[index]))
}

/// What the function with an instruction at `at` is.
pub(crate) fn role(at: usize) -> Role {
    function(at).map_or(Role::Plain, |(_, role)| role)
}

/// The file and line of the instruction at `at`.
pub(crate) fn source(at: usize) -> Option<(String, u32)> {
    let (f, _) = function(at)?;
    let offset = (at - f.start) as u32;
    let line =
        f.lines[..f.lines.partition_point(|l| l.0 <= offset)].iter().rev().find(|l| l.1 != 0)?.1;
    Some((FUNCTIONS.get()?.file.clone(), line))
}

/// The text of one goroutine.
pub(crate) struct Lines {
    text: String,
    frames: usize,
    begun: bool,
}

impl Lines {
    pub(crate) fn of(id: u64, state: &str) -> Lines {
        Lines { text: format!("goroutine {id} [{state}]:\n"), frames: 0, begun: false }
    }

    /// A frame with an instruction at `at`, younger ones first. Those of the panic itself, above
    /// the function that panicked, are not shown.
    pub(crate) fn frame(&mut self, at: usize) -> ControlFlow<()> {
        let Some((f, role)) = function(at) else {
            if self.begun {
                self.native(at);
            }
            return self.go_on();
        };
        let shown = match role {
            Role::Plain => true,
            Role::Panic | Role::Goexit => self.begun,
            Role::Wrapper | Role::Start | Role::Runtime => false,
        };
        if shown {
            self.begun = true;
            self.line(&f.name, source(at));
        }
        self.go_on()
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.frames > SHOWN { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn line(&mut self, name: &str, source: Option<(String, u32)>) {
        self.frames += 1;
        if self.frames > SHOWN {
            return;
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{name}(...)");
        if let Some((file, line)) = source {
            let _ = writeln!(self.text, "\t{file}:{line}");
        }
    }

    /// A function of C code, or of the runtime itself, which is left out.
    fn native(&mut self, at: usize) {
        let mut found = vec![];
        backtrace::resolve(at as *mut std::ffi::c_void, |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}"));
            let source =
                symbol.filename().map(|f| (f.display().to_string(), symbol.lineno().unwrap_or(0)));
            found.push((name, source));
        });
        if os::in_own_image(at) {
            return;
        }
        if found.is_empty() {
            found.push((None, None));
        }
        for (name, source) in found {
            if name.as_ref().is_some_and(|n| n.starts_with("_minigo_")) {
                continue;
            }
            self.line(&name.unwrap_or_else(|| format!("{at:#x}")), source);
        }
    }

    pub(crate) fn finish(mut self) -> String {
        if self.frames > SHOWN {
            self.text.push_str("...additional frames elided...\n");
        }
        self.text
    }
}

/// The current goroutine's traceback, through all its stacks; without one, those of the goroutines
/// that wait.
pub(crate) fn current() -> String {
    let Some(id) = host::current_id() else { return host::parked_goroutines() };
    let mut lines = Lines::of(id, "running");
    host::full_backtrace(|at| lines.frame(at));
    lines.finish()
}
