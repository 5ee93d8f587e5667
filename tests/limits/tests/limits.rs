//! What loops is stopped, what hangs is stopped, and what starves is not.

use limits::{Exceeded, Limits, Watch, wait, wait_until};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(1000);

fn shell(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("a shell")
}

fn killed(mut child: Child) {
    child.kill().expect("a child that has not been waited for");
    child.wait().expect("a child that nothing else waits for");
}

#[test]
fn a_process_that_ends_leaves_its_status() {
    let limits = Limits { cpu: LONG, standstill: LONG };
    assert_eq!(wait(&mut shell("exit 7"), limits).expect("no limit reached").code(), Some(7));
}

#[test]
fn a_busy_loop_is_stopped_by_its_cpu_time() {
    let limits = Limits { cpu: Duration::from_millis(300), standstill: LONG };
    let exceeded = wait(&mut shell("while :; do :; done"), limits).unwrap_err();
    assert!(matches!(exceeded, Exceeded::Cpu(used) if used > limits.cpu), "{exceeded}");
}

#[test]
fn a_busy_loop_in_a_childs_child_counts() {
    let limits = Limits { cpu: Duration::from_millis(300), standstill: LONG };
    let exceeded = wait(&mut shell("sh -c 'while :; do :; done'; true"), limits).unwrap_err();
    assert!(matches!(exceeded, Exceeded::Cpu(_)), "{exceeded}");
}

#[test]
fn a_process_that_sleeps_is_stopped_for_lack_of_progress() {
    let limits = Limits { cpu: LONG, standstill: Duration::from_millis(700) };
    let exceeded = wait(&mut shell("exec sleep 1000"), limits).unwrap_err();
    assert!(matches!(exceeded, Exceeded::Standstill(_)), "{exceeded}");
}

#[test]
fn a_process_that_waits_for_a_working_child_makes_progress() {
    let limits = Limits { cpu: Duration::from_secs(2), standstill: Duration::from_millis(700) };
    let exceeded = wait(&mut shell("sh -c 'while :; do :; done'; true"), limits).unwrap_err();
    assert!(matches!(exceeded, Exceeded::Cpu(_)), "{exceeded}");
}

#[test]
fn a_process_that_gets_no_processor_does_not_hang() {
    // On one processor, with the lowest of priorities beside three others.
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux's /proc");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.expect("of every Linux").trim();
    let processor = allowed.split([',', '-']).next().expect("one at least");
    let busy = format!("exec taskset -c {processor} sh -c 'while :; do :; done'");
    let starved = shell(&format!("renice -n 19 $$ >/dev/null; {busy}"));
    let busy: Vec<Child> = (0..3).map(|_| shell(&busy)).collect();
    let limits = Limits { cpu: LONG, standstill: Duration::from_millis(700) };
    let mut watch = Watch::of(starved.id(), limits);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(watch.look(), Ok(()));
        std::thread::sleep(Duration::from_millis(5));
    }
    busy.into_iter().chain([starved]).for_each(killed);
}

#[test]
fn a_process_that_is_stopped_does_not_hang() {
    let child = shell("kill -STOP $$; exec sleep 1000");
    let limits = Limits { cpu: LONG, standstill: Duration::from_millis(700) };
    let mut watch = Watch::of(child.id(), limits);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(watch.look(), Ok(()));
        std::thread::sleep(Duration::from_millis(5));
    }
    killed(child);
}

#[test]
fn a_watcher_that_is_held_up_takes_nothing_for_a_hang() {
    let child = shell("exec sleep 1000");
    let limits = Limits { cpu: LONG, standstill: Duration::from_secs(2) };
    let mut watch = Watch::of(child.id(), limits);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(watch.look(), Ok(()));
    killed(child);
}

#[test]
fn the_own_process_is_waited_for() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let other = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(300));
        // Relaxed: only the flag matters.
        DONE.store(true, Relaxed);
    });
    wait_until("the other thread is not done", || DONE.load(Relaxed));
    other.join().expect("it does not panic");
}
