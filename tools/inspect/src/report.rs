//! The list of goroutines as text.

use crate::error::Error;
use crate::process::{Process, Stack};
use object::ReadRef;
use std::fmt::{self, Write};

/// Writes each goroutine with its stack, as the gdb script does.
///
/// # Errors
/// [`Error`]: the list is damaged or not in the core. What was written before stays.
///
/// # Panics
/// If `into` fails.
pub fn report<'d, R: ReadRef<'d>>(process: &Process<R>, into: &mut dyn Write) -> Result<(), Error> {
    let goroutines = process.goroutines()?;
    let mut runtimes: Vec<u64> = goroutines.iter().map(|goroutine| goroutine.runtime).collect();
    runtimes.dedup();
    for goroutine in goroutines {
        let runtime = match runtimes.len() {
            0 | 1 => String::new(),
            _ => format!(" of runtime {}", goroutine.runtime),
        };
        let thread = goroutine.thread.map_or_else(String::new, |n| format!(", LWP {n}"));
        let (id, state) = (goroutine.id, goroutine.state);
        writeln!(into, "goroutine {id}{runtime} [{state}{thread}]:").expect(WRITES);
        write_stack(&process.stack(&goroutine), into).expect(WRITES);
    }
    Ok(())
}

const WRITES: &str = "a writer that does not fail";

fn write_stack(stack: &Stack, into: &mut dyn Write) -> fmt::Result {
    for (level, frame) in stack.frames.iter().enumerate() {
        write!(into, "#{level:<3} {:#x} in {}", frame.pc, frame.name)?;
        match &frame.source {
            Some((file, line)) => writeln!(into, " at {file}:{line}")?,
            None => writeln!(into)?,
        }
    }
    if let Some(why) = &stack.cut_off {
        writeln!(into, "the stack is cut off: {why}")?;
    }
    Ok(())
}
