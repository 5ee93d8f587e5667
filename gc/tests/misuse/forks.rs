//! Attempts in the child of a fork. It has the memory of all threads, and only the thread that
//! forked.

use super::{attempts, trusted};
use stackmark::stack::scheduler::Scheduler;
use stackmark::stack::{Left, Machine, Word};

/// What the names of these attempts begin with.
pub(crate) const PREFIX: &str = "fork_";

/// The attempts that end the child.
pub(crate) const ATTEMPTS: &[&str] = &[
    "attach",
    "run",
    "inside",
    "call_in",
    "spawn",
    "spawn_in_native",
    "schedule",
    "ready",
    "start",
    "stop",
    "preempt",
    "stop_world",
    "collect",
    "request",
    "drop_collector",
];

pub(crate) fn run(attempt: &str) {
    let (runtime, _heap, collector) = attempts::world();
    let scheduler = Scheduler::new(&runtime, 1, Box::new(|| ()));
    let machine = Machine::attach(&runtime).expect("attached");
    let goroutine = trusted::spawn(&runtime);
    let parked = trusted::spawn_native(&runtime, || trusted::park(|_| ()));
    assert!(matches!(machine.run(parked.clone()), Left::Parked));
    let status = match attempt {
        "spawn_in_native" => {
            let (send, receive) = std::sync::mpsc::channel();
            let its = runtime.clone();
            let native = trusted::spawn_native(&runtime, move || {
                let status = trusted::in_child(|| drop(trusted::spawn(&its)));
                send.send(status).expect("the receiver is there");
            });
            machine.run(native);
            receive.recv().expect("native code has run")
        }
        "stop" => {
            let threads = scheduler.start().expect("threads");
            trusted::in_child(|| threads.stop())
        }
        // On a thread that has no machine.
        "attach" | "call_in" => {
            let its = runtime.clone();
            let its = move |attempt: &str| match attempt {
                "attach" => drop(Machine::attach(&its)),
                _ => drop(its.call_in(|_| ())),
            };
            std::thread::scope(|scope| {
                scope.spawn(|| trusted::in_child(|| its(attempt))).join().expect("no panic")
            })
        }
        "nothing" => trusted::in_child(|| ()),
        _ => trusted::in_child(|| match attempt {
            "run" => drop(machine.run(goroutine)),
            "inside" => machine.inside(|_| ()),
            "spawn" => drop(trusted::spawn(&runtime)),
            "schedule" => runtime.schedule(goroutine),
            "ready" => runtime.ready(parked, Word::Plain(0)),
            "start" => drop(scheduler.start()),
            "preempt" => runtime.preempt_all(),
            "stop_world" => runtime.stop_world(|_| ()),
            "collect" => collector.collect(),
            "request" => collector.request(|| ()),
            "drop_collector" => drop(collector),
            other => panic!("no attempt is named {other}"),
        }),
    };
    println!("the child has ended");
    std::process::exit(status);
}
