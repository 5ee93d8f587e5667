//! The plans of MMTk's that are tested, and how each is run in a process of its own: MMTk is a
//! singleton, so a test starts itself.

use super::{Run, Shown};
use limits::Limits;
use stackmark_mmtk::Options;
use std::process::{ExitStatus, Stdio};

/// What a process that a test has started finds in its environment.
pub(crate) const PLAN: &str = "STACKMARK_MMTK_PLAN";
const STRESS: &str = "STACKMARK_MMTK_STRESS";
/// How often each plan is run.
const RUNS: &str = "STACKMARK_MMTK_RUNS";

/// Options of a plan, whether it moves objects, and whether collections may be short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    heap: &'static [(&'static str, &'static str)],
    pub(crate) moves: bool,
    pub(crate) short: bool,
}

const fn plan(name: &'static str, moves: bool) -> Plan {
    Plan { name, heap: &[("gc_trigger", "FixedHeapSize:48m")], moves, short: false }
}

/// Immix moves objects only where that helps, unless it is told to.
const DEFRAG: &[(&str, &str)] = &[
    ("gc_trigger", "FixedHeapSize:48m"),
    ("immix_always_defrag", "true"),
    ("immix_defrag_every_block", "true"),
];

pub(crate) const PLANS: [Plan; 10] = [
    Plan { heap: &[("gc_trigger", "FixedHeapSize:1g")], ..plan("NoGC", false) },
    plan("MarkSweep", false),
    Plan { heap: DEFRAG, ..plan("Immix", true) },
    Plan { heap: DEFRAG, short: true, ..plan("StickyImmix", true) },
    plan("SemiSpace", true),
    Plan { short: true, ..plan("GenCopy", true) },
    Plan { short: true, ..plan("GenImmix", true) },
    plan("MarkCompact", true),
    plan("Compressor", true),
    Plan { heap: &[("gc_trigger", "Delegated")], ..plan("ConcurrentImmix", false) },
];

impl Plan {
    /// How a test runs it: on two threads and by two workers, verified, with a collection after so
    /// many bytes. Under stress stacks move at every poll, and what is free is poisoned.
    pub(crate) fn run(&self, every: usize, stress: bool) -> Run {
        let bytes = every.to_string();
        let mut heap = self.heap.to_vec();
        heap.push(("threads", "2"));
        if !matches!(self.name, "NoGC" | "ConcurrentImmix") {
            heap.push(("stress_factor", &bytes));
        }
        let mut run = Run::on(self.name, &heap);
        run.threads = 2;
        run.collects_every = every;
        run.options = Options { verify: true, ..Options::default() };
        run.config.move_every_poll = stress;
        run.config.poison = stress;
        run
    }

    /// Fails unless there were so many collections, and each did what is the plan's.
    pub(crate) fn check(&self, shown: &Shown, collections: usize) {
        if self.name == "NoGC" {
            return;
        }
        assert!(shown.collections >= collections, "{} collections", shown.collections);
        assert_eq!(shown.moved > 0, self.moves, "{} objects moved", shown.moved);
        assert_eq!(shown.short > 0, self.short, "{} short collections", shown.short);
    }
}

/// The plan that this process is to run, and whether stacks move at every poll, if a test has
/// started it.
pub(crate) fn of_this_process() -> Option<(&'static Plan, bool)> {
    let name = std::env::var(PLAN).ok()?;
    let plan = PLANS.iter().find(|plan| plan.name == name).expect("a plan");
    Some((plan, std::env::var_os(STRESS).is_some()))
}

/// How often each plan is to be run.
pub(crate) fn runs() -> usize {
    std::env::var(RUNS).map_or(1, |runs| runs.parse().expect("a number"))
}

/// Runs one test of this program in a process of its own. Returns the line of figures that it has
/// printed, which begins with the plan's name.
pub(crate) fn in_a_process(test: &str, plan: &Plan, stress: bool) -> String {
    let mut variables = vec![(PLAN, plan.name)];
    if stress {
        variables.push((STRESS, "1"));
    }
    let (status, output) = start_test(test, &variables);
    assert!(status.success(), "{}, stress {stress}: {status}\n{output}", plan.name);
    let shown = output.lines().find(|line| line.starts_with(plan.name));
    shown.unwrap_or_else(|| panic!("no line of figures:\n{output}")).to_owned()
}

/// Runs one test of this program with these variables. Returns what it has written to both outputs.
pub(crate) fn start_test(test: &str, variables: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut command = limits::this_program();
    command.args(["--exact", test, "--nocapture"]).env_remove(PLAN).env_remove(STRESS);
    command.envs(variables.iter().copied());
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    let (out, err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let out = std::thread::spawn(|| std::io::read_to_string(out).expect("text"));
    let err = std::thread::spawn(|| std::io::read_to_string(err).expect("text"));
    let status = limits::wait(&mut child, Limits::default());
    let output = out.join().expect("no panic") + &err.join().expect("no panic");
    let status = status.unwrap_or_else(|limit| panic!("{variables:?} {limit}\n{output}"));
    (status, output)
}
