//! How the time for a program grows with what it does. Four times as much may take four times the
//! CPU time, and somewhat more for caches; where it takes sixteen times, something is quadratic.
//! One thread runs the goroutines: how often two of them wake each other is chance.
// The time of the processor that a child has used comes from wait4.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// How much more the larger program may take.
const MOST: f64 = 8.0;

const ATTEMPTS: usize = 4;

fn program(name: &str, text: &str, n: usize) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}_{n}.go"));
    fs::write(&file, text.replace("SIZE", &n.to_string())).unwrap();
    file
}

/// The CPU time of a run that ends with status 0.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
fn cpu_time(file: &Path) -> Duration {
    let child = Command::new(env!("CARGO_BIN_EXE_minigo"))
        .args(["--threads", "1"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut status, pid) = (0, child.id() as i32);
    // SAFETY: plain data, filled in by the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child, for which nothing else waits.
    let ended = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!(ended, pid);
    let status = ExitStatus::from_raw(status);
    assert!(status.success(), "{}: {status}", file.display());
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, 1000 * t.tv_usec as u32);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The best of some attempts counts: others on the machine take caches away, too.
fn check(name: &str, text: &str, n: usize) {
    let ratio = || {
        let [small, large] = [n, 4 * n].map(|n| cpu_time(&program(name, text, n)));
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        println!("{name}: {n} in {small:.1?}, {} in {large:.1?}: {ratio:.1} times", 4 * n);
        ratio
    };
    let grows = (0..ATTEMPTS).all(|_| ratio() >= MOST);
    assert!(!grows, "{name}: four times as much takes {MOST} times as long or more");
}

/// Goroutines that wait in a select leave the queue of a channel that is never ready: the last
/// first, the first first, and from everywhere.
#[test]
fn leaving_the_queue_of_a_channel() {
    let text = "package main\n\nconst n = SIZE\n\nfunc round(order func(i int) int) {\n\
                \tshared, done := make(chan int), make(chan int, n)\n\
                \town := make([]chan int, n)\n\
                \tfor i := range own {\n\t\town[i] = make(chan int)\n\
                \t\tgo func(mine chan int) {\n\t\t\tselect {\n\
                \t\t\tcase <-shared:\n\t\t\tcase v := <-mine:\n\t\t\t\tdone <- v\n\t\t\t}\n\
                \t\t}(own[i])\n\t}\n\
                \tfor i := range own {\n\t\town[order(i)] <- 1\n\t\t<-done\n\t}\n}\n\n\
                func main() {\n\tround(func(i int) int { return n - 1 - i })\n\
                \tround(func(i int) int { return i })\n\
                \tround(func(i int) int { return i * 7919 % n })\n}\n";
    check("leaving", text, 20_000);
}

/// Many that are woken already, and have not run yet, stand in front of a queue that is looked at.
#[test]
fn looking_at_a_queue_of_woken_goroutines() {
    let text = "package main\n\nconst n = SIZE\n\nfunc main() {\n\
                \tshared, close1 := make(chan int), make(chan int)\n\
                \tfor i := 0; i < n; i++ {\n\t\tgo func() {\n\t\t\tselect {\n\
                \t\t\tcase <-shared:\n\t\t\tcase <-close1:\n\t\t\t}\n\t\t}()\n\t}\n\
                \tfor i := 0; i < 20; i++ {\n\t\tyield()\n\t}\n\
                \tclose(close1)\n\
                \tfor i := 0; i < n; i++ {\n\t\tselect {\n\
                \t\tcase shared <- 1:\n\t\tdefault:\n\t\t}\n\t}\n}\n\n\
                func yield() {\n\tc := make(chan int)\n\tgo func() { c <- 1 }()\n\t<-c\n}\n";
    check("woken", text, 30_000);
}
