//! What verification catches: a scan that ignores barriers, slots that are kept over a restart, and
//! a derived pointer that is written without its reference. Each fault runs in a process of its
//! own, which verification ends; without the fault the same program runs to its end.

mod vm;

use stackmark_mmtk::{Fault, Options};
use vm::Run;
use vm::binding::FATAL;
use vm::code::Work;
use vm::plans::start_test;

/// What a process that this test starts finds in its environment: the fault, and whether it is
/// made.
const FAULT: &str = "STACKMARK_MMTK_FAULT";
const MADE: &str = "STACKMARK_MMTK_FAULT_IS_MADE";

/// At most so many collections until verification has found a fault.
const WITHIN: u64 = 100;

fn options(fault: Fault) -> Options {
    Options { verify: true, fault, ..Options::default() }
}

fn run(plan: &str, options: Options) -> Run {
    let heap = [("gc_trigger", "FixedHeapSize:48m"), ("threads", "2"), ("stress_factor", "200000")];
    Run {
        options,
        depth: 2000,
        work: Work { at_bottom: 20_000, on_return: 10_000, every: 32, wiggle: 50 },
        ..Run::on(plan, &heap)
    }
}

/// Each fault, the plan that it is made under, and what verification says.
const FAULTS: [(&str, &str); 3] = [
    ("ignored_barriers", "verification: "),
    ("kept_slots", "verification: "),
    ("derived_alone", "verification: "),
];

fn child(name: &str, made: bool) {
    // SAFETY: verification ends the process before managed code runs again.
    let fault = |fault| if made { fault } else { Fault::default() };
    match name {
        "ignored_barriers" => {
            // SAFETY: as above.
            let options = options(fault(unsafe { Fault::ignored_barriers() }));
            vm::run(&run("GenImmix", options), 0);
        }
        "kept_slots" => {
            // SAFETY: as above.
            let options = options(fault(unsafe { Fault::kept_slots() }));
            vm::run(&run("SemiSpace", options), 0);
        }
        "derived_alone" => {
            // SAFETY: as above.
            let options = options(fault(unsafe { Fault::derived_alone() }));
            vm::derived::run(&run("SemiSpace", options));
        }
        _ => panic!("no fault {name}"),
    }
    println!("{}", vm::shown());
}

#[test]
fn verification_finds_what_a_fault_loses() {
    if let Ok(name) = std::env::var(FAULT) {
        return child(&name, std::env::var_os(MADE).is_some());
    }
    for (name, says) in FAULTS {
        let test = "verification_finds_what_a_fault_loses";
        let (status, output) = start_test(test, &[(FAULT, name)]);
        assert!(status.success(), "{name} is not made: {status}\n{output}");
        let (status, output) = start_test(test, &[(FAULT, name), (MADE, "1")]);
        assert_eq!(status.code(), Some(FATAL), "{name}: {status}\n{output}");
        let line = output.lines().find(|line| line.contains(says));
        let line = line.unwrap_or_else(|| panic!("{name}:\n{output}"));
        println!("{name}: {line}");
        let pause = line.rsplit("in pause ").next().and_then(|pause| pause.parse().ok());
        assert!(pause.is_some_and(|pause: u64| pause <= WITHIN), "{name}: {line}");
    }
}
