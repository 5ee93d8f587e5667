//! Whatever safe code writes through the public API neither crashes, nor frees what is held, nor
//! hangs without words: each misuse is a typed error, a panic that names the rule, or (in
//! `refused/`) impossible to write.
//!
//! Each attempt runs in a process of its own: [`attempts`] holds the code, this file what is right.

#![deny(unsafe_code)]

mod attempts;
#[cfg(unix)]
mod forks;
mod trusted;

use limits::Limits;
use std::io::Read;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

/// The environment variable that names the attempt of a child.
const ATTEMPT: &str = "STACKMARK_MISUSE";
/// What an attempt may use.
const LIMITS: Limits = Limits { cpu: Duration::from_secs(60), standstill: Duration::from_secs(20) };

/// How a child ended, and what it wrote.
struct Ended {
    status: Option<i32>,
    /// Or an exception of Windows.
    signal: Option<i32>,
    text: String,
}

fn run(attempt: &str) -> Ended {
    let mut child = limits::this_program()
        .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ATTEMPT, attempt)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut pipes: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let readers = pipes.each_mut().map(|pipe| {
        let mut pipe = std::mem::replace(pipe, Box::new(std::io::empty()));
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    // `None`: it loops or hangs.
    let status = limits::wait(&mut child, LIMITS).ok();
    let text = readers.map(|reader| reader.join().expect("a reader")).concat();
    Ended { status: status.and_then(code), signal: status.and_then(signal), text }
}

#[cfg(unix)]
fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    status.signal()
}

#[cfg(windows)]
fn code(status: ExitStatus) -> Option<i32> {
    status.code().filter(|code| *code >= 0)
}

/// The status of a process that an exception ends is its code, whose highest bit is set.
#[cfg(windows)]
fn signal(status: ExitStatus) -> Option<i32> {
    status.code().filter(|code| *code < 0)
}

/// The attempt ends well, and says `expected`.
#[track_caller]
fn behaves(attempt: &str, expected: &str) {
    let Ended { status, signal, text } = run(attempt);
    assert!(status == Some(0), "{attempt}: status {status:?}, signal {signal:?}:\n{text}");
    assert!(text.contains(expected), "{attempt} does not say {expected:?}:\n{text}");
}

/// The attempt ends the process with a status of its own and with words, not by a signal.
#[track_caller]
fn ends_with(attempt: &str, expected: &str) {
    let Ended { status, signal, text } = run(attempt);
    assert!(
        status.is_some_and(|status| status != 0),
        "{attempt}: status {status:?}, signal {signal:?}:\n{text}"
    );
    assert!(text.contains(expected), "{attempt} does not say {expected:?}:\n{text}");
}

/// The process of one attempt.
#[test]
#[ignore = "a part of the others"]
fn child() {
    if let Ok(attempt) = std::env::var(ATTEMPT) {
        #[cfg(unix)]
        if let Some(attempt) = attempt.strip_prefix(forks::PREFIX) {
            return forks::run(attempt);
        }
        attempts::run(&attempt);
    }
}

#[test]
// What compiles depends on no processor, and the compiler's messages quote the standard library
// where that is built from its sources, as it is for these.
#[cfg(target_pointer_width = "64")]
fn what_must_not_compile_does_not() {
    if limits::is_skipped_under_emulation("what compiles depends on no processor") {
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/misuse/refused/*.rs");
}

/// The call of `is_on_its_thread` is ambiguous, and does not compile, for a type that is `Send`.
/// Not in `refused/`: the compiler would name private fields.
#[test]
fn what_shows_that_a_thread_is_inside_stays_on_the_thread() {
    trait OnItsThread<A> {
        fn is_on_its_thread() {}
    }
    impl<T> OnItsThread<()> for T {}
    impl<T: Send> OnItsThread<u8> for T {}
    <stackmark::stack::Inside<'_> as OnItsThread<_>>::is_on_its_thread();
    <stackmark::stack::Caller<'_> as OnItsThread<_>>::is_on_its_thread();
    <stackmark::heap::Fresh<'_> as OnItsThread<_>>::is_on_its_thread();
}

#[test]
fn a_control_behaves() {
    behaves("baseline", "native code has run");
}

#[test]
fn objects_allocated_inside_and_held_are_never_handed_out_again() {
    behaves("allocate_beside_collections", "handed out twice: 0");
}

#[test]
fn the_readme_loop_beside_a_collecting_thread_hands_nothing_out_twice() {
    behaves("readme_loop", "handed out twice: 0");
}

#[test]
fn an_allocation_in_a_foreign_call_is_a_typed_error() {
    behaves("allocate_in_foreign", "refused");
}

#[test]
fn an_allocation_with_another_runtimes_token_is_a_typed_error() {
    behaves("allocate_inside_another_runtime", "refused");
}

#[test]
fn a_fresh_object_is_not_kept_across_a_foreign_call() {
    ends_with("keep_across_foreign", "outside");
}

#[test]
fn a_fresh_object_is_not_kept_for_the_next_goroutine_of_a_machine() {
    ends_with("keep_for_the_next_goroutine", "outside");
}

#[test]
fn a_second_collector_of_a_runtime_is_a_typed_error() {
    behaves("two_collectors_runtime", "refused");
}

#[test]
fn a_second_collector_of_a_heap_is_a_typed_error() {
    behaves("two_collectors_heap", "refused");
}

#[test]
fn a_new_collector_after_the_first_is_dropped_is_a_typed_error() {
    behaves("collector_after_drop", "refused");
}

#[test]
fn cycles_by_hand_beside_a_collector_are_a_typed_error() {
    behaves("cycles_by_hand", "refused");
}

#[test]
fn a_machine_does_not_run_another_runtimes_goroutine() {
    behaves("other_runtime", "belongs to another runtime");
}

#[test]
fn attaching_inside_machine_attached_is_a_typed_error() {
    behaves("nested_attach", "AlreadyAttached");
}

#[test]
fn a_goroutine_is_not_run_by_native_code_of_another() {
    ends_with("nested_run", "a machine runs one goroutine at a time");
}

#[test]
fn a_goroutine_is_not_run_from_within_a_foreign_call() {
    ends_with("nested_run_foreign", "a machine runs one goroutine at a time");
}

#[test]
fn one_goroutine_runs_on_one_machine() {
    behaves("one_goroutine_twice", "one of two panicked each time");
}

#[test]
fn a_dead_goroutine_is_not_run_and_the_next_collection_ends() {
    behaves("dead_then_collect", "collected");
}

#[test]
fn a_goroutine_that_is_not_parked_is_not_made_ready() {
    behaves("ready_not_parked", "only a parked goroutine is made ready");
}

#[test]
fn a_goroutine_scheduled_twice_ends_the_process_with_words() {
    ends_with("scheduled_twice", "a goroutine is started twice");
}

#[test]
fn collect_in_native_code_names_the_rule() {
    ends_with("collect_in_native", "Caller::foreign");
}

#[test]
fn collect_in_a_foreign_call_behaves() {
    behaves("collect_in_foreign", "collected");
}

#[test]
fn collect_at_a_poll_names_the_rule() {
    ends_with("collect_at_poll", "Caller::foreign");
}

#[test]
fn a_collection_at_every_poll_ends_with_the_collector() {
    behaves("collect_every_poll", "polled");
}

#[test]
fn collect_from_within_machine_inside_names_the_rule() {
    behaves("collect_inside", "Caller::foreign");
}

#[test]
fn collect_in_a_finaliser_names_the_rule() {
    ends_with("collect_in_finaliser", "collector");
}

#[test]
fn collect_in_a_stopped_world_names_the_rule() {
    behaves("collect_in_stopped_world", "stopped world");
}

#[test]
fn a_collector_dropped_on_a_thread_that_its_cycle_waits_for_is_no_harm() {
    behaves("drop_collector_inside", "dropped inside");
    behaves("drop_collector_in_stopped_world", "dropped in a stopped world");
}

#[test]
fn a_panic_in_done_ends_the_process_with_words() {
    ends_with("panic_in_done", "stackmark-cycle panicked");
}

/// Its goroutine would be lost, and what waits for that would wait for ever.
#[test]
fn a_panic_on_a_machines_thread_ends_the_process_with_words() {
    ends_with("panic_on_a_machines_thread", "the process ends: thread machine-");
    ends_with("panic_of_a_machine_that_begins", "the process ends: thread machine-");
}

#[test]
fn what_stops_many_threads_is_said_once() {
    let Ended { status, text, .. } = run("fatal_on_many_threads");
    assert_eq!(status, Some(2), "{text}");
    assert_eq!(text.matches("it is said").count(), 1, "{text}");
}

#[test]
fn collect_in_done_names_the_rule() {
    ends_with("collect_in_done", "collector");
}

#[test]
fn the_last_collector_dropped_in_done_is_no_harm() {
    behaves("drop_collector_in_done", "dropped");
}

#[test]
fn a_panic_in_a_finaliser_ends_the_process_with_words() {
    ends_with("panic_in_finaliser", "my finaliser");
}

#[test]
fn a_stop_of_the_world_in_native_code_names_the_rule() {
    ends_with("world_in_native", "Caller::foreign");
}

#[test]
fn stops_of_the_world_nest_and_end_with_a_panic_of_theirs() {
    behaves("two_worlds", "goes on");
}

#[test]
fn a_thread_does_not_wait_for_the_world_that_it_has_stopped() {
    behaves("run_in_own_stopped_world", "this thread has stopped the world");
    behaves("run_in_own_stopped_world", "collected");
}

// No thread interrupts another one there.
#[cfg(not(windows))]
#[test]
fn a_world_that_does_not_stop_is_reported_with_a_traceback() {
    behaves("straggler", "straggle");
}

#[cfg(windows)]
#[test]
fn a_world_that_does_not_stop_is_reported_without_a_traceback() {
    behaves("straggler", "its thread does not answer");
}

#[test]
fn options_out_of_range_are_typed_errors() {
    behaves("options_stack", "checked");
    behaves("options_collector", "checked");
    behaves("options_heap", "checked");
    behaves("options_scheduler", "a scheduler runs 1 to");
}

#[test]
fn the_frames_of_the_own_goroutine_are_no_deadlock() {
    behaves("own_frames", "frames");
}

#[test]
fn handles_outlive_their_collector() {
    behaves("handles_after", "live");
}

#[test]
fn a_forgotten_machine_is_no_harm() {
    behaves("forget_machine", "collected");
}

#[test]
fn words_that_are_no_references_are_no_harm_in_handles() {
    behaves("random_words", "collected");
}

#[test]
fn descriptors_and_sizes_out_of_range_are_typed_errors() {
    behaves("descriptors", "checked");
}

#[test]
fn a_closure_that_publishes_a_parked_goroutine_does_not_unwind() {
    ends_with("publish_panics", "the closure that publishes a parked goroutine has unwound");
}

#[test]
fn a_thread_that_parks_a_goroutine_has_none_any_more() {
    let words = "a goroutine: false\nno goroutine is run from within Machine::inside, or while \
                 another one parks here\n3 frames\nParked";
    behaves("frames_while_parking", words);
}

#[test]
fn an_end_of_the_process_does_not_unwind() {
    ends_with("fatal_unwinds", "the process ends: Host::fatal has unwound");
}

#[test]
fn an_observer_does_not_unwind() {
    ends_with("observer_panics", "the process ends: an observer has unwound");
}

#[test]
fn a_sink_of_roots_does_not_unwind() {
    ends_with("sink_panics", "the process ends: RootSink::roots has unwound");
}

#[test]
fn what_runs_under_a_goroutines_lock_asks_for_no_stack() {
    let words = ["frames", "visit_all", "scan_frozen", "census"];
    words.iter().for_each(|word| {
        behaves(
            "stacks_within_a_visit",
            &format!("{word} is not called from a visit of all stacks: it might wait for a lock"),
        );
    });
    behaves("stacks_within_a_visit", "Some(1)");
}

#[test]
fn a_host_that_attaches_a_schedulers_thread_ends_the_process() {
    ends_with("attach_in_scheduler", "AlreadyAttached");
}

#[test]
fn a_handle_to_a_threads_goroutine_is_never_anothers() {
    behaves("handles_of_threads", "20 records for 20 threads\n");
    behaves("handles_of_threads", "only a parked goroutine is made ready");
    behaves("handles_of_threads", "right: Parked\n[]");
}

#[test]
fn a_goroutine_in_a_callback_runs_on_its_own_thread() {
    let words = "is in a callback, and goes on on its own thread\nback in the callback";
    behaves("run_in_callback", words);
}

#[test]
fn foreign_calls_nest_over_callbacks_alone() {
    let words = "a foreign call is under way on this goroutine\n\
                 a foreign call is under way on this goroutine\nExited";
    behaves("nested_foreign", words);
}

// There are no forks.
#[cfg(unix)]
#[test]
fn the_child_of_a_fork_ends_with_one_line_where_it_calls_in() {
    if limits::is_skipped_under_emulation(
        "the emulator does not clear pages in the child of a fork",
    ) {
        return;
    }
    for attempt in forks::ATTEMPTS {
        let attempt = format!("{}{attempt}", forks::PREFIX);
        ends_with(&attempt, "the child of a fork has called into the runtime");
    }
}

// There are no forks.
#[cfg(unix)]
#[test]
fn a_child_of_a_fork_that_calls_nothing_ends_well() {
    behaves(&format!("{}nothing", forks::PREFIX), "the child has ended");
}
