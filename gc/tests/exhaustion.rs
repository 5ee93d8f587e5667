//! Exhaustion: the system gives no more address space, memory or threads. Each case is a process of
//! its own with a limit on its address space. It does all its work, or ends with an error that says
//! what was missing.

// Wine does not limit the memory of a process.
#![cfg(not(windows))]

use std::process::Stdio;
use std::sync::Arc;

use limits::Limits;
use stackmark::mark_sweep::{AllocationError, Descriptor, MarkSweep, Options};
use stackmark::stack::{self, Goroutine, Host, Machine, Runtime};
use stackmark::{Collector, Config, heap::Heap, unwind::Code};

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
}

const LIMIT: &str = "STACKMARK_ADDRESS_SPACE";

/// Fills the heap with a list until there is no more room, and drops the list, several times.
fn work() -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        Runtime::new(stack::Config::default(), Arc::new(Code::new()), Box::new(Embedder))?;
    let heap = MarkSweep::new(&Options { limit: 1 << 30, poison: true, ..Options::default() })?;
    let config = Config { workers: 3, percent: None, verify: true, ..Config::default() };
    let collector = Collector::start(Arc::clone(&heap), Arc::clone(&runtime), &config)?;
    let references = heap.register(Descriptor::references())?;
    let allocator = heap.allocator()?;
    let machine = Machine::attach(&runtime)?;
    for round in 0..3 {
        let kept = collector.handles().create(0);
        let mut length = 0;
        // A bound, for systems that give everything.
        while length < 2_000 {
            let allocated = machine.inside(|inside| {
                let object = allocator.allocate(&inside, references, 16 << 10)?;
                // SAFETY: an object of 16 KiB that was just allocated.
                unsafe { object.as_ptr().cast::<usize>().write(kept.get()) };
                kept.set(object.address());
                Ok(())
            });
            match allocated {
                Ok(()) => length += 1,
                Err(error @ AllocationError::OutOfMemory { .. }) if round > 0 || length == 0 => {
                    return Err(error.into());
                }
                Err(_) => break,
            }
        }
        collector.collect();
        // Nothing is lost.
        let mut at = kept.get();
        for _ in 0..length {
            assert!(heap.resolve(at).is_some());
            // SAFETY: an object of the list.
            at = unsafe { *(at as *const usize) };
        }
        assert_eq!(at, 0);
        drop(kept);
        (0..2).for_each(|_| collector.collect());
        assert_eq!(heap.counts().live_bytes, 0);
    }
    Ok(())
}

/// What the standard library and the C library say where a thread that has been started gets no
/// signal stack or no thread-locals, or where there is no memory for small things. They end the
/// process then: a thread's start has no error for it.
const STANDARD: [&str; 3] =
    ["failed to allocate an alternative stack", "memory allocation of", "out of memory"];

#[test]
fn a_process_within_limits_works_or_says_what_is_missing() {
    if let Ok(limit) = std::env::var(LIMIT) {
        // The largest is more than some systems can express.
        let bytes = limit.parse().unwrap_or(libc::RLIM_INFINITY);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: sets a limit of this process, which exists for this purpose.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        if let Err(error) = work() {
            eprintln!("missing: {error}");
            // SAFETY: ends the process; threads may be running.
            unsafe { libc::_exit(3) };
        }
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    if limits::is_skipped_under_emulation("the emulator needs memory of its own") {
        return;
    }
    let (mut worked, mut ended, mut missing) = (0, 0, Vec::new());
    for mebibytes in
        (8u64..64).step_by(4).chain((64..512).step_by(16)).chain([1 << 10, 2 << 10, 4 << 10])
    {
        let test = std::thread::current().name().expect("tests have names").to_owned();
        let mut command = limits::this_program();
        command.args(["--exact", &test, "--nocapture"]).env(LIMIT, (mebibytes << 20).to_string());
        command.env("RUST_BACKTRACE", "0").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        limits::wait(&mut child, Limits::default())
            .unwrap_or_else(|exceeded| panic!("with {mebibytes} MiB it {exceeded}"));
        let out = child.wait_with_output().expect("our child");
        let stderr = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(0) => worked += 1,
            Some(3) => missing.extend(
                stderr.lines().find(|line| line.starts_with("missing: ")).map(str::to_owned),
            ),
            // So little that not even the test's own process can begin.
            _ if mebibytes < 16 => {}
            // The system's libraries end the process, with their own words.
            None if STANDARD.iter().any(|words| stderr.contains(words)) => ended += 1,
            _ => panic!("with {mebibytes} MiB: {}\n{stderr}", out.status),
        }
    }
    missing.dedup();
    println!("{worked} worked, {ended} were ended; {missing:#?}");
    assert!(
        worked >= 2 && missing.iter().any(|what| what.contains("address space")),
        "{worked} {missing:?}"
    );
}
