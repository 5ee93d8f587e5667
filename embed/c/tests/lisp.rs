//! The Lisp in `example`: built by make on the installed libraries, and run.

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use limits::{Exceeded, Limits};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{has, here, prefix, ran, scratch};

/// Builds the Lisp in a directory of its own, with more switches. None without the
/// tools for it.
fn lisp(name: &str, switches: &str) -> Option<PathBuf> {
    if !has("make") || !has("pkg-config") {
        return None;
    }
    let out = scratch(&format!("lisp-{name}"));
    let mut make = Command::new("make");
    make.arg("-C").arg(here().join("example")).arg(format!("OUT={}", out.display()));
    make.arg(format!("PREFIX={}", prefix().display())).arg(format!("CFLAGS=-O1 -g {switches}"));
    ran(&mut make);
    Some(out.join("lisp"))
}

fn run(lisp: &PathBuf, program: &str, argument: &str, stress: &str) -> Output {
    let programs = here().join("example/programs");
    let mut command = Command::new(lisp);
    command.arg(programs.join(format!("{program}.lisp")));
    if !argument.is_empty() {
        command.arg(argument);
    }
    // The constants of the compiled code lie in memory that the leak checker does not read.
    command.env("ASAN_OPTIONS", "detect_leaks=0").env("LISP_STRESS", stress);
    command.output().expect("the Lisp runs")
}

#[track_caller]
fn prints(lisp: &PathBuf, program: &str, argument: &str, stress: &str, expected: &str) {
    let Output { status, stdout, stderr } = run(lisp, program, argument, stress);
    let (out, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {argument} {stress}: {status}\n{out}{error}");
    assert_eq!(out, expected, "{program} {argument} {stress}\n{error}");
}

/// What a program prints, as it is stored.
fn stored(program: &str) -> String {
    let file = here().join("example/programs").join(format!("{program}.out"));
    fs::read_to_string(file).expect("the stored output")
}

#[test]
fn all_programs_print_what_is_stored() {
    let Some(lisp) = lisp("plain", "") else { return };
    for program in ["tak", "queens", "pingpong", "deep", "fresh", "big"] {
        prints(&lisp, program, "", "", &stored(program));
    }
}

/// What `deep` prints with another depth, and `pingpong` with fewer rounds.
fn shorter(program: &str, n: u64) -> String {
    match program {
        "deep" => stored(program).replace("1000000", &n.to_string()),
        _ => {
            let total = (0..n).map(|round| round + 7).sum::<u64>();
            format!("(rounds {n} total {total})\n")
        }
    }
}

fn stressed(stress: &str, n: u64) {
    let Some(lisp) = lisp(&stress.replace(',', "-"), "") else { return };
    for program in ["tak", "queens", "big"] {
        prints(&lisp, program, "", stress, &stored(program));
    }
    for program in ["pingpong", "deep"] {
        prints(&lisp, program, &n.to_string(), stress, &shorter(program, n));
    }
}

#[test]
fn stacks_that_move_at_every_poll() {
    stressed("move,poison,verify", 300);
}

#[test]
fn the_hybrid_barrier_on_stacks_that_move() {
    stressed("hybrid,move,poison,verify", 300);
}

#[test]
fn first_stores_into_new_objects_are_reported() {
    let Some(lisp) = lisp("fresh", "") else { return };
    for stress in ["verify,poison", "hybrid,verify,poison", "generational,verify,poison"] {
        prints(&lisp, "fresh", "", stress, &stored("fresh"));
    }
}

#[test]
fn minor_collections() {
    stressed("generational,move,poison,verify", 300);
}

#[test]
fn a_collection_at_every_poll() {
    let Some(lisp) = lisp("collect", "") else { return };
    for barrier in ["", "hybrid,"] {
        let stress = format!("{barrier}collect,move,poison,verify");
        for program in ["pingpong", "deep"] {
            prints(&lisp, program, "60", &stress, &shorter(program, 60));
        }
    }
}

/// Code polls between the returns of a recursion, where there are no prologues. Here each poll asks
/// for a collection.
#[test]
fn a_recursion_polls_on_its_way_back() {
    let Some(lisp) = lisp("returns", "") else { return };
    let file = scratch("returns").join("returns.lisp");
    let text = "
        (define at-the-bottom 0)
        (define (down n)
          (if (= n 0)
              (begin (set! at-the-bottom (cycles)) 0)
              (+ 1 (down (- n 1)))))
        (define depth (down 40))
        (display (list depth (< 30 (- (cycles) at-the-bottom))))";
    fs::write(&file, text).expect("the program is written");
    let output =
        Command::new(&lisp).arg(&file).env("LISP_STRESS", "collect").output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "(40 #t)", "{error}");
}

#[test]
fn under_the_address_and_undefined_behaviour_sanitizers() {
    let Some(lisp) = lisp("sanitized", "-fsanitize=address,undefined -fno-sanitize-recover=all")
    else {
        return;
    };
    for program in ["tak", "queens", "big"] {
        prints(&lisp, program, "", "poison", &stored(program));
    }
    prints(&lisp, "pingpong", "500", "move,poison", &shorter("pingpong", 500));
    prints(&lisp, "deep", "1000000", "", &stored("deep"));
}

#[test]
fn mistakes_of_a_program_end_it_with_a_message_and_its_frames() {
    let Some(lisp) = lisp("mistakes", "") else { return };
    let directory = scratch("mistakes");
    for (text, says) in [
        ("(define (f x) (+ 1 (car x))) (f 5)", "lisp: not a pair\n"),
        ("(define (f x) (+ 1 (car nothing))) (f 5)", "lisp: not a pair\n"),
        ("(define (f x) (* x x)) (f (f (f 100000000)))", "a number is too large"),
        ("(define (f x) x) (f 1 2)", "lisp: wrong number of arguments\n"),
        ("(define (f x) (vector-ref (make-vector 3 0) x)) (f 3)", "lisp: no such index\n"),
        ("(define (f x) (+ 1 (f x))) (f 1)", "lisp: goroutine 1: its stack exceeds"),
        ("(define (f x) (receive x)) (f (make-channel))", "lisp: all goroutines wait\n"),
    ] {
        let file = directory.join("mistake.lisp");
        fs::write(&file, text).expect("the program is written");
        let output = Command::new(&lisp).arg(&file).output().expect("the Lisp runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
        let in_f = says.contains("exceeds") || says.contains("wait");
        assert!(in_f || error.contains("\nf(...)"), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let Some(lisp) = lisp("limits", "") else { return };
    let file = scratch("limits").join("limit.lisp");
    let bindings: String = (0..65).map(|i| format!("(a{i} {i})")).collect();
    for (text, says) in [
        (format!("(define (f x) (let ({bindings}) x)) (f 1)"), "more than 64 names"),
        ("(define f (lambda ())) (f)".into(), "a body without forms"),
        ("(display 1152921504606846976)".into(), "the number 1152921504606846976 is too large"),
        ("(display -1152921504606846977)".into(), "the number -1152921504606846977 is too large"),
        ("(display 99999999999999999999)".into(), "the number 99999999999999999999 is too large"),
    ] {
        fs::write(&file, &text).expect("the program is written");
        let output = Command::new(&lisp).arg(&file).output().expect("the Lisp runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_longer_program_has_300_lines() {
    let text = fs::read_to_string(here().join("example/programs/big.lisp")).expect("the program");
    assert!(text.lines().count() >= 300);
}

#[test]
fn the_largest_numbers_are_read_and_written() {
    let Some(lisp) = lisp("numbers", "") else { return };
    let file = scratch("numbers").join("numbers.lisp");
    let text = "(define (f x) (display (- x 1)) (newline) (display (+ x 0)))
        (f 1152921504606846975) (newline) (display -1152921504606846976) (display argument)";
    fs::write(&file, text).expect("the program is written");
    let run = |argument| Command::new(&lisp).arg(&file).arg(argument).output().expect("it runs");
    let output = run("7");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1152921504606846974\n1152921504606846975\n-11529215046068469767"
    );
    for wrong in ["1152921504606846976", "7x", ""] {
        assert_eq!(run(wrong).status.code(), Some(1), "{wrong:?}");
    }
}

/// A goroutine fills a pipe that is not read, and waits. Another one collects for ever, or until a
/// collection waits for the first.
#[test]
fn a_goroutine_that_waits_for_its_output_holds_no_collection_up() {
    let Some(lisp) = lisp("pipe", "") else { return };
    let file = scratch("pipe").join("pipe.lisp");
    let text = "
        (define (talks n) (while #t (begin (display n) (newline))))
        (go (lambda () (talks 1000000000)))
        (while #t (collect))";
    fs::write(&file, text).expect("the program is written");
    let reports = file.with_extension("err");
    let error = fs::File::create(&reports).expect("a file");
    let mut command = Command::new(&lisp);
    command.arg(&file).stdout(Stdio::piped()).stderr(error);
    let mut child = command.spawn().expect("it runs");
    let limits = Limits { cpu: Duration::from_secs(1), ..Limits::default() };
    let reached = limits::wait(&mut child, limits).expect_err("it runs for ever");
    // A goroutine that collections wait for is reported.
    let reports = fs::read_to_string(reports).expect("UTF-8");
    assert!(matches!(reached, Exceeded::Cpu(_)) && reports.is_empty(), "{reached:?}\n{reports}");
}
