//! Both write barriers with the same programs, in turns: which of them a program is faster with.

use super::{Arguments, PROGRAMS, middle, run_ours, runs, sized};
use minigo::BarrierKind;
use std::error::Error;
use std::path::Path;

/// Wall time and longest pause in seconds of one run.
type Run = [f64; 2];

/// Prints a line for each program: medians with the insertion barrier, and the hybrid barrier over
/// it, of each round; then the same as figures.
pub(crate) fn compare(
    arguments: &Arguments,
    root: &Path,
    directory: &Path,
) -> Result<(), Box<dyn Error>> {
    let machine = quiet::Machine::look();
    println!("hybrid over insertion barrier: medians of {} rounds", runs(arguments));
    println!(
        "{:<16} {:>10} {:>6}   {:>10} {:>6}",
        "program", "wall, s", "ratio", "pause, us", "ratio"
    );
    let mut figures = Vec::new();
    for program in PROGRAMS.iter().filter(|program| arguments.wants(program.name)) {
        let file = sized(program, arguments.quick, root, directory)?;
        let run = |kind| -> Result<Run, Box<dyn Error>> {
            let (ran, pause) = run_ours(arguments, &file, directory, kind)?;
            Ok([ran.wall.as_secs_f64(), pause.as_secs_f64()])
        };
        let mut rounds = Vec::new();
        for round in 0..runs(arguments) {
            // The one that begins takes turns, too.
            rounds.push(if round % 2 == 0 {
                let insertion = run(BarrierKind::Insertion)?;
                (insertion, run(BarrierKind::Hybrid)?)
            } else {
                let hybrid = run(BarrierKind::Hybrid)?;
                (run(BarrierKind::Insertion)?, hybrid)
            });
        }
        let [wall, pause] = [0, 1].map(|column| {
            middle(rounds.iter().map(|(insertion, _)| insertion[column]), f64::total_cmp)
        });
        let [wall_ratio, pause_ratio] = [0, 1].map(|column| {
            let ratios =
                rounds.iter().map(|(insertion, hybrid)| hybrid[column] / insertion[column]);
            middle(ratios, f64::total_cmp)
        });
        let pause = pause * 1e6;
        println!(
            "{:<16} {wall:>10.3} {wall_ratio:>6.3}   {pause:>10.1} {pause_ratio:>6.3}",
            program.name
        );
        figures.push((format!("{}_hybrid_wall", program.name), wall_ratio));
        figures.push((format!("{}_hybrid_pause", program.name), pause_ratio));
    }
    drop(machine);
    for (name, ratio) in figures.iter().filter(|(_, ratio)| ratio.is_finite()) {
        println!("figure {name} {ratio:.3} ratio");
    }
    Ok(())
}
