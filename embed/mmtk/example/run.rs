//! Runs programs of the language on a plan of MMTk's.

use crate::compile::compile;
use crate::natives::{PRINTED, RESULT};
use crate::vm::{self, Run};
use stackmark_mmtk::stack::Word;

/// A program, and what it returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! programs {
    ($($name:ident)*) => {
        &[$(Program {
            name: stringify!($name),
            text: include_str!(concat!("programs/", stringify!($name), ".cells")),
        }),*]
    };
}

pub(crate) const PROGRAMS: &[Program] = programs! {
    list trees sort sieve texts closures weak pipeline workers queens table ring matrix deep
};

impl Program {
    /// What the program's text says that it returns.
    pub(crate) fn result(&self) -> usize {
        let line = self.text.lines().find_map(|line| line.strip_prefix("; result "));
        line.and_then(|result| result.parse().ok()).expect("a line with the result")
    }
}

/// Runs programs one after the other, `times` times, and tells of each.
///
/// # Panics
/// If one is wrong, or returns something else than it says.
pub(crate) fn run(
    run: &Run,
    programs: &[Program],
    times: usize,
    mut tell: impl FnMut(&Program, usize),
) {
    let (runtime, code, threads) = vm::start(run);
    for program in programs {
        let begin = compile(program.text, &code);
        let begin = begin.unwrap_or_else(|wrong| panic!("{}, {wrong}", program.name));
        for _ in 0..times {
            // SAFETY: compiled code that keeps the contracts.
            let main = unsafe { runtime.spawn(begin, Word::Plain(0)) }.expect("memory");
            runtime.schedule(main);
            let (result, ended) = &RESULT;
            let result = result.lock().expect("no panic");
            let mut result = ended.wait_while(result, |result| result.is_none()).expect("no panic");
            let result = result.take().expect("waited for");
            assert_eq!(result, program.result(), "{}", program.name);
        }
        tell(program, vm::shown().collections);
    }
    threads.stop();
}

/// What has been printed since the last call.
pub(crate) fn printed() -> Vec<i64> {
    std::mem::take(&mut *PRINTED.lock().expect("no panic"))
}
