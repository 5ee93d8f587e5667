//! Programs of a few lines, each for one rule of the language: all that they print, on standard
//! output and standard error, and their status, as real Go has them.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, minigo, names_in, programs};
use std::fs;
use std::process::Command;

/// What real Go printed, and its status.
struct Expected {
    text: String,
    status: i32,
}

impl Expected {
    fn of(name: &str) -> Expected {
        let file = programs().join("cases").join(format!("{name}.out"));
        let all = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let (text, status) = all.rsplit_once("status ").expect("the last line names the status");
        Expected { text: text.to_owned(), status: status.trim().parse().unwrap() }
    }
}

/// Runs a case. Of one that fails only the first lines are compared: a traceback follows.
fn check(name: &str, options: &[&str]) {
    let expected = Expected::of(name);
    let outcome = minigo(options, &programs().join("cases").join(format!("{name}.go")));
    outcome.expect_status(expected.status);
    // The two streams are pipes of their own; no case needs their order.
    let all = outcome.stdout.clone() + &outcome.stderr;
    let same = match expected.status {
        0 => all == expected.text,
        _ => all.starts_with(&expected.text),
    };
    assert!(same, "{}\nprints\n{all}\nreal Go prints\n{}", outcome.command, expected.text);
}

/// Names of the directory; those of the second list are too large for stress. The list of names
/// gets the third argument's name.
macro_rules! tests {
    ($($name:ident),*; large: $($large:ident),*; $list:ident) => {
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
            fn poisoned() {
                for _ in 0..5 {
                    let options = ["--threads", "4", "--stress", "poison,collect-every-poll"];
                    check(stringify!($name), &options);
                }
            }

            #[test]
            fn under_stress() {
                check(stringify!($name), &["--stress", ALL_STRESS]);
                let list = "poison,verify,collect-every-poll";
                check(stringify!($name), &["--generational", "--stress", list]);
                let options =
                    ["--write-barrier", "hybrid", "--threads", "2", "--stress", ALL_STRESS];
                check(stringify!($name), &options);
            }
        })*

        $(mod $large {
            use super::*;

            #[test]
            fn by_default() {
                check(stringify!($large), &[]);
            }
        })*

        const $list: &[&str] = &[$(stringify!($name),)* $(stringify!($large)),*];
    };
}

tests! {
    assign_order, copy_of_results, error_panics, fmt_catches_panics, impossible_interface,
    large_copies, map_literal_order, nil_deferred_during_panic, panic_while_main_returns,
    promoted_from_embedded_interface, range_array_call, runtime_error_method, two_blank_labels,
    uint8_to_string, unsafe_sizeof;
    large: huge_global, large_local_recursion, large_values, many_selectors;
    WITHOUT_C
}

// C code is not supported on Windows.
#[cfg(not(windows))]
tests! {
    c_constants, c_function_names, c_gostring_preamble, c_layouts, c_own_names, c_struct_offsets,
    c_unprototyped, c_unsigned_constant, c_variable, c_variables;
    large: ;
    WITH_C
}

fn names() -> Vec<String> {
    let mut names = names_in(&programs().join("cases"));
    // These are not run where there are none in the second list.
    names.retain(|name| cfg!(not(windows)) || !name.starts_with("c_"));
    names
}

#[test]
fn every_case_in_the_directory_is_tested() {
    let mut tested = WITHOUT_C.to_vec();
    #[cfg(not(windows))]
    tested.extend(WITH_C);
    tested.sort_unstable();
    assert_eq!(names(), tested);
}

/// Where real Go is installed, it prints what is stored.
#[test]
fn what_is_stored_is_what_real_go_prints() {
    let version = Command::new("go").arg("version").output();
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    if !version.as_ref().is_ok_and(|v| v.contains(" go1.19")) {
        println!("skipped: there is no Go 1.19");
        return;
    }
    for name in names() {
        let scratch = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-case");
        let built = Command::new("go")
            .env("GO111MODULE", "off")
            .args(["build", "-o"])
            .arg(&scratch)
            .arg(programs().join("cases").join(format!("{name}.go")))
            .status();
        assert!(built.unwrap().success(), "{name}");
        let output = Command::new(&scratch).output().unwrap();
        let all = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let expected = Expected::of(&name);
        assert_eq!(output.status.code(), Some(expected.status), "{name}");
        assert!(all.starts_with(&expected.text), "{name}: {all}");
    }
}
