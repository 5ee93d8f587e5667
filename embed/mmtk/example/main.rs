//! A small language on MMTk: typed cells, arrays, texts, closures, weak references, goroutines and
//! channels. `cargo run --release --example cells -- PLAN [PROGRAM]...`

mod compile;
mod natives;
mod run;
mod syntax;
mod types;
#[path = "../tests/vm/mod.rs"]
mod vm;

use run::PROGRAMS;
use stackmark_mmtk::Options;
use stackmark_mmtk::stack::Config;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let plan = arguments.next().unwrap_or_else(|| "GenImmix".into());
    let wanted: Vec<String> = arguments.collect();
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| wanted.is_empty() || wanted.iter().any(|name| name == program.name))
        .copied()
        .collect();
    if programs.is_empty() {
        let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        eprintln!("there is no such program; there are {}", names.join(", "));
        std::process::exit(2);
    }
    let run = vm::Run {
        plan,
        heap: vec![("gc_trigger".into(), "FixedHeapSize:64m".into())],
        config: Config { exact_language_words: true, ..Config::default() },
        options: Options::default(),
        depth: 0,
        goroutines: 0,
        threads: 2,
        work: vm::code::Work { at_bottom: 0, on_return: 0, every: 1, wiggle: 0 },
    };
    run::run(&run, &programs, 1, |program, collections| {
        println!("{}: {}; {collections} collections", program.name, program.result());
        let printed = run::printed();
        if !printed.is_empty() {
            println!("  {printed:?}");
        }
    });
    println!("{}", vm::shown());
}
