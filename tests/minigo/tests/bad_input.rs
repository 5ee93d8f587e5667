//! Programs that do not compile, and files that are none: one clear message that names the place,
//! status 1.
#[macro_use]
mod runner;

use runner::{minigo, names_in, programs};
use std::fs;
use std::path::Path;

/// Runs a program that must be refused; each line of its `.err` must be in what is said.
fn check(name: &str) {
    let directory = programs().join("bad");
    let outcome = minigo(&[], &directory.join(format!("{name}.go")));
    outcome.expect(1, "");
    for wanted in fs::read_to_string(directory.join(format!("{name}.err"))).unwrap().lines() {
        outcome.expect_stderr(wanted);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}\n{}", outcome.command, outcome.stderr);
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

tests! {
    complex_numbers, constant_division, constant_overflow, constant_product, constant_squares,
    fmt_unsupported, generics, import_unsupported, missing_return, mixed_types, no_main,
    other_package, recursive_type, result_count, syntax_error, type_error, unclosed,
    unclosed_string, undefined, unused_import, unused_variable, wide_function,
}

#[test]
fn every_program_in_the_directory_is_tested() {
    assert_eq!(names_in(&programs().join("bad")), NAMES);
}

/// What the front end cannot do right it refuses, naming the place; otherwise the output is real
/// Go's.
#[test]
fn gaps_are_refused_or_closed() {
    let directory = programs().join("gaps");
    for name in names_in(&directory) {
        let outcome = minigo(&[], &directory.join(format!("{name}.go")));
        if outcome.status.success() {
            outcome.expect(0, &fs::read_to_string(directory.join(format!("{name}.out"))).unwrap());
        } else {
            outcome.expect(1, "").expect_stderr(&format!("{name}.go:"));
        }
    }
}

/// A file with this content, for one test.
fn written(name: &str, content: &[u8]) -> std::path::PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, content).unwrap();
    file
}

#[test]
fn missing_file() {
    let outcome = minigo(&[], Path::new("no_such_file.go"));
    outcome.expect(1, "").expect_stderr("no_such_file.go");
}

#[test]
fn directory_for_a_file() {
    minigo(&[], &programs()).expect(1, "").expect_stderr("programs");
}

#[test]
fn empty_file() {
    minigo(&[], &written("empty.go", b"")).expect(1, "").expect_stderr("empty.go");
}

#[test]
fn text_that_is_not_utf8() {
    let file = written("latin1.go", b"package main\n\nfunc main() { println(\"\xe9\") }\n");
    minigo(&[], &file).expect(1, "").expect_stderr("latin1.go");
}

#[test]
fn zero_bytes() {
    minigo(&[], &written("zeros.go", &[0; 4096])).expect(1, "").expect_stderr("zeros.go:");
}

#[test]
fn interfaces_without_a_name_that_refer_to_themselves() {
    let text = "package main\n\ntype t interface{ m() interface{ t } }\n\ntype x struct{}\n\n\
                func (x) m() interface{ t } { return x{} }\n\n\
                func main() {\n\tvar v t = x{}\n\tprintln(v.m().m() != nil)\n}\n";
    let outcome = minigo(&[], &written("refers_to_itself.go", text.as_bytes()));
    outcome.expect(1, "").expect_stderr("refers_to_itself.go:7:");
}

/// Each constant is the square of the one before: the front end would compute for years.
#[test]
fn squares_of_constants() {
    let mut text = String::from("package main\n\nconst (\n\tc0 = 1 << 300\n");
    for i in 1..60 {
        text += &format!("\tc{i} = c{0} * c{0}\n", i - 1);
    }
    text += ")\n\nfunc main() { println(c59 > 0) }\n";
    let outcome = minigo(&[], &written("squares.go", text.as_bytes()));
    outcome.expect(1, "").expect_stderr("squares.go:5:10: constant multiplication overflow");
}

/// Every program cut off at some places: a message or, rarely, a whole program; never a crash.
#[test]
fn programs_cut_short() {
    for name in ["arrays", "closures", "control", "structs"] {
        let source = fs::read_to_string(programs().join(format!("{name}.go"))).unwrap();
        for quarter in 1..4 {
            let cut = (0..=source.len() * quarter / 4)
                .rev()
                .find(|&at| source.is_char_boundary(at))
                .unwrap();
            let file = written(&format!("cut_{name}_{quarter}.go"), &source.as_bytes()[..cut]);
            let outcome = minigo(&[], &file);
            outcome.expect(1, "").expect_stderr(&format!("cut_{name}_{quarter}.go:"));
            assert!(
                !outcome.stderr.contains("panicked"),
                "{}\n{}",
                outcome.command,
                outcome.stderr
            );
        }
    }
}
