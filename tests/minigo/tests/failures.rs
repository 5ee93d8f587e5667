//! Failures at run time: Go's message on standard error, what was printed before it, and exit
//! status 2.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, minigo, names_in, programs};
use std::fs;

/// Runs a program that fails. Go's message is the first line, except that a stack overflow has a
/// line before it.
fn check(name: &str, options: &[&str]) {
    let directory = programs().join("fail");
    let read =
        |suffix: &str| fs::read_to_string(directory.join(format!("{name}.{suffix}"))).unwrap();
    let outcome = minigo(options, &directory.join(format!("{name}.go")));
    outcome.expect(2, &read("out"));
    let message = read("err");
    let first = outcome.stderr.lines().find(|line| !line.starts_with("runtime: ")).unwrap_or("");
    assert_eq!(first, message.trim_end(), "{}\n{}", outcome.command, outcome.stderr);
    // In a deadlock no goroutine runs that could be shown.
    if !name.starts_with("deadlock") {
        outcome.expect_stderr("\ngoroutine ");
    }
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[test]
            fn by_default() {
                check(stringify!($name), &[]);
            }

            #[test]
            fn on_four_threads() {
                check(stringify!($name), &["--threads", "4"]);
            }

            #[test]
            fn on_threads_own_stacks() {
                check(stringify!($name), &["--native-stacks"]);
            }

            #[test]
            fn under_stress() {
                // A stack overflow at every poll of which the stack moves needs a low limit.
                check(stringify!($name), &["--max-stack", "131072", "--stress", ALL_STRESS]);
            }
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

tests! {
    close_closed, close_nil, deadlock_goexit, deadlock_many, deadlock_nil, deadlock_receive,
    deadlock_select, deadlock_send, divide, index_array, index_slice, index_string,
    index_unsigned, make_capacity, make_channel, make_huge, make_length, nil_array,
    nil_function, nil_large, nil_method, nil_read, nil_write, panic_again, panic_bool,
    panic_float, panic_goroutine, panic_in_deferred, panic_init, panic_int, panic_named,
    panic_named_string, panic_nil, panic_string, remainder, send_closed,
    send_closed_while_waiting, shift_negative, slice_array, slice_capacity, slice_low,
    slice_negative, slice_order, slice_string, slice_three, stack_overflow,
    stack_overflow_goroutine,
}

#[test]
fn every_failure_in_the_directory_is_tested() {
    assert_eq!(names_in(&programs().join("fail")), NAMES);
}

#[test]
fn panics_under_way_are_all_named() {
    let again = "panic: BOOM [recovered]\n\tpanic: again BOOM [recovered]\n\
                 \tpanic: again again BOOM [recovered]\n\t\
                 panic: again again again BOOM\n\ngoroutine 1 [running]:\nmain.f.func1(...)\n";
    minigo(&[], &programs().join("fail/panic_again.go")).expect_status(2).expect_stderr(again);
    let deferred = "panic: +3.500000e+000\n\
                    \tpanic: runtime error: invalid memory address or nil pointer dereference\n\
                    [signal SIGSEGV";
    minigo(&[], &programs().join("fail/panic_in_deferred.go"))
        .expect_status(2)
        .expect_stderr(deferred);
}

#[test]
fn tracebacks_name_functions_and_lines() {
    let file = programs().join("fail/panic_again.go");
    let source = fs::read_to_string(&file).unwrap();
    let line = |text: &str| source.lines().position(|l| l.contains(text)).unwrap() + 1;
    let path = std::path::absolute(&file).unwrap();
    let expected = format!(
        "panic(...)\nmain.f(...)\n\t{0}:{1}\nmain.f(...)\n\t{0}:{2}\nmain.f(...)\n\t{0}:{2}\n\
         main.main(...)\n\t{0}:{3}\n",
        path.display(),
        line("panic(\"BOOM\")"),
        line("f(n - 1)"),
        line("f(2)"),
    );
    minigo(&[], &file).expect_status(2).expect_stderr(&expected);
}

#[test]
fn stack_overflow_names_the_limit() {
    let file = programs().join("fail/stack_overflow.go");
    minigo(&[], &file)
        .expect_status(2)
        .expect_stderr("runtime: goroutine stack exceeds 1000000000-byte limit\n");
    minigo(&["--max-stack", "200000"], &file)
        .expect(2, "before\n")
        .expect_stderr("runtime: goroutine stack exceeds 200000-byte limit\n")
        .expect_stderr("fatal error: stack overflow\n");
}
