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
    let run = vm::Run { threads: 2, ..vm::Run::on(&plan, &[("gc_trigger", "FixedHeapSize:64m")]) };
    run::run(&run, &programs, 0, |program, ran| {
        let run::Ran { result, times, collections, moved } = ran;
        println!(
            "{}: {result}; runs: {times}, collections: {collections}, objects moved: {moved}",
            program.name
        );
        let printed = run::printed();
        if !printed.is_empty() {
            println!("  {printed:?}");
        }
    });
    println!("{}", vm::shown());
}
