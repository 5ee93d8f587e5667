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
    /// Its text, and what it says that it returns. A small one has shallow stacks: a number of the
    /// text is another one then, where a line says so.
    fn text_and_result(&self, small: bool) -> (String, usize) {
        let line = |begin| self.text.lines().find_map(|line| line.strip_prefix(begin));
        let (text, result) = match line("; small ").filter(|_| small) {
            Some(line) => {
                let (change, result) = line.split_once(", result ").expect("a result");
                let (from, to) = change.split_once(" is ").expect("two numbers");
                (self.text.replace(from, to), Some(result))
            }
            None => (self.text.to_owned(), line("; result ")),
        };
        let result = result.and_then(|result| result.parse().ok());
        (text, result.expect("a line with the result"))
    }
}

/// What a program has shown, in all of its runs together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) result: usize,
    pub(crate) times: usize,
    pub(crate) collections: usize,
    pub(crate) moved: u64,
}

/// Runs programs one after the other, and tells of each. Each is run again until it has had so many
/// collections. Where stacks move at every poll, programs are small.
///
/// # Panics
/// If one is wrong, or returns something else than it says.
pub(crate) fn run(
    run: &Run,
    programs: &[Program],
    collections: usize,
    mut tell: impl FnMut(&Program, Ran),
) {
    let (runtime, code, threads) = vm::start(run);
    for program in programs {
        let (text, wanted) = program.text_and_result(run.config.move_every_poll);
        let begin = compile(&text, &code);
        let begin = begin.unwrap_or_else(|wrong| panic!("{}, {wrong}", program.name));
        let before = vm::shown();
        let mut times = 0;
        let ran = loop {
            // SAFETY: compiled code that keeps the contracts.
            let main = unsafe { runtime.spawn(begin, Word::Plain(0)) }.expect("memory");
            runtime.schedule(main);
            let (result, ended) = &RESULT;
            let result = result.lock().expect("no panic");
            let mut result = ended.wait_while(result, |result| result.is_none()).expect("no panic");
            let result = result.take().expect("waited for");
            assert_eq!(result, wanted, "{}", program.name);
            let now = vm::shown();
            times += 1;
            let ran = Ran {
                result,
                times,
                collections: now.collections - before.collections,
                moved: now.moved - before.moved,
            };
            if ran.collections >= collections {
                break ran;
            }
        };
        tell(program, ran);
    }
    threads.stop();
}

/// What has been printed since the last call.
pub(crate) fn printed() -> Vec<i64> {
    std::mem::take(&mut *PRINTED.lock().expect("no panic"))
}
