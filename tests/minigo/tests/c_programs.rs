//! Programs with C code: calls out, callbacks in, threads of C's own, panics through all of them.
//! They print what real Go with cgo prints, by default and while the collector, the barriers and
//! the moves do their worst.
// C code is not supported on Windows.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, VERIFIED, minigo, names_with_c, number, programs};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything takes several times as long then.
const UNDER_SANITIZER: bool = cfg!(any(stackmark_asan, stackmark_tsan));

fn check(name: &str, options: &[&str]) {
    let slow = UNDER_SANITIZER || limits::is_emulated();
    let size = if slow || options.contains(&"--stress") { Size::Stress } else { Size::Full };
    Program::with_c(name).check(options, size);
}

/// A program that fails: what it prints before, Go's line, status 2. It does not hang.
fn check_failure(name: &str, options: &[&str]) {
    let directory = programs().join("c").join(name);
    let read =
        |suffix: &str| fs::read_to_string(directory.join(format!("{name}.{suffix}"))).unwrap();
    let outcome = minigo(options, &directory.join(format!("{name}.go")));
    outcome.expect(2, &read("out"));
    assert_eq!(outcome.stderr.lines().next(), read("err").lines().next(), "{}", outcome.stderr);
    outcome.expect_stderr("\ngoroutine ").expect_stderr("[running]:\n");
}

macro_rules! each_option {
    ($check:ident, $name:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn by_default() {
                $check(stringify!($name), &[]);
            }

            #[test]
            fn on_four_threads() {
                $check(stringify!($name), &["--threads", "4"]);
            }

            /// While one goroutine is in C, others need its thread.
            #[test]
            fn on_one_thread() {
                $check(stringify!($name), &["--threads", "1"]);
            }

            #[test]
            fn collect_every_poll() {
                $check(stringify!($name), &["--stress", "collect-every-poll"]);
            }

            #[test]
            fn barrier_every_frame() {
                $check(stringify!($name), &["--stress", "barrier-every-frame"]);
            }

            #[test]
            fn move_every_poll() {
                $check(stringify!($name), &["--stress", "move-every-poll"]);
            }

            #[test]
            fn poison() {
                $check(stringify!($name), &["--stress", "poison"]);
            }

            #[test]
            fn each_item_verified_on_two_threads() {
                VERIFIED.iter().for_each(|list| {
                    $check(stringify!($name), &["--threads", "2", "--stress", list])
                });
            }

            #[test]
            fn each_item_verified_on_four_threads() {
                VERIFIED.iter().for_each(|list| {
                    $check(stringify!($name), &["--threads", "4", "--stress", list])
                });
            }

            #[test]
            fn all_together() {
                $check(stringify!($name), &["--stress", ALL_STRESS]);
            }

            #[test]
            fn all_together_and_minor() {
                $check(stringify!($name), &["--generational", "--stress", ALL_STRESS]);
            }

            #[test]
            fn collect_minor_without_barriers() {
                let options = [
                    "--generational",
                    "--barriers",
                    "off",
                    "--stress",
                    "collect-every-poll,verify",
                ];
                $check(stringify!($name), &options);
            }
        }
    };
}

macro_rules! programs {
    ($($name:ident),* $(,)?) => {
        $(each_option!(check, $name);)*

        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
    };
}

macro_rules! failures {
    ($($name:ident),* $(,)?) => {
        $(each_option!(check_failure, $name);)*

        const FAILURES: &[&str] = &[$(stringify!($name)),*];
    };
}

for_each_c_program!(programs);

failures! { callback_panics, external_thread_panic, goexit_on_foreign_thread }

#[test]
fn every_program_in_the_directory_is_tested() {
    let mut names: Vec<&str> = PROGRAMS.iter().chain(FAILURES).copied().collect();
    names.sort_unstable();
    assert_eq!(names_with_c(), names);
}

#[test]
fn tracebacks_go_through_c_frames_in_their_order() {
    let directory = programs().join("c/callback_panics");
    let outcome = minigo(&[], &directory.join("callback_panics.go"));
    let functions: Vec<&str> =
        outcome.stderr.lines().filter_map(|l| l.strip_suffix("(...)")).collect();
    assert_eq!(
        functions,
        ["main.goFails", "goFails", "inner", "callBack", "main.caller", "main.main"]
    );
    for (file, text) in [("go", "\t*p = 1"), ("c", "    goFails();"), ("go", "\tC.callBack()")] {
        let name = format!("callback_panics.{file}");
        let source = fs::read_to_string(directory.join(&name)).unwrap();
        let line = source.lines().position(|l| l == text).unwrap() + 1;
        // A return address is behind its call: C's line tables may name the next line.
        let there = outcome.stderr.contains(&format!("{name}:{line}\n"))
            || (file == "c" && outcome.stderr.contains(&format!("{name}:{}\n", line + 1)));
        assert!(there, "{name}:{line} is missing\n{}", outcome.stderr);
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// A program in which functions with frames of every size call C, which calls back: with every
/// amount of free stack, from next to nothing to more than two small stacks.
fn every_free_amount(step: usize) -> PathBuf {
    let mut source = String::from(
        "package main\n\n// void callBack(int *n);\nimport \"C\"\n\nimport \"fmt\"\n\n",
    );
    source.push_str(
        "//export goCallback\nfunc goCallback(n C.int) C.int { return C.int(use(int(n))) }\n\n",
    );
    source.push_str(
        "func use(n int) int {\n\tvar buf [64]byte\n\tbuf[n%64] = 1\n\
                     \treturn n + int(buf[n%64])\n}\n\n",
    );
    let mut calls = String::new();
    for bytes in (4..=5000).step_by(step) {
        writeln!(
            source,
            "func stack{bytes}() C.int {{\n\tvar buf [{bytes}]byte\n\tbuf[0], buf[{last}] = 1, 2\n\
             \tvar n C.int = {bytes}\n\t\
             C.callBack(&n)\n\tif int(buf[0])+int(buf[{last}]) != 3 {{\n\
             \t\tpanic(\"stack{bytes}\")\n\t}}\n\treturn n\n}}\n",
            last = bytes - 1,
        )
        .unwrap();
        writeln!(
            calls,
            "\tgo func() {{ done <- stack{bytes}() - {bytes} }}()\n\tsum += int(<-done)"
        )
        .unwrap();
    }
    writeln!(
        source,
        "func main() {{\n\tdone := make(chan C.int)\n\tsum := 0\n{calls}\tfmt.Println(sum)\n}}"
    )
    .unwrap();
    let own = directory(&format!("callback_stack_{step}"));
    let c = "#include \"_cgo_export.h\"\n\nvoid callBack(int *n)\n{\n    *n = goCallback(*n);\n}\n";
    fs::write(own.join("callback_stack.c"), c).unwrap();
    let file = own.join("callback_stack.go");
    fs::write(&file, source).unwrap();
    file
}

#[test]
fn callback_stack() {
    let (step, wanted) = if UNDER_SANITIZER { (44, "114\n") } else { (4, "1250\n") };
    let file = every_free_amount(step);
    minigo(&[], &file).expect(0, wanted);
    minigo(&["--stress", "poison,verify"], &file).expect(0, wanted);
}

#[test]
fn callback_stack_under_stress() {
    minigo(&["--stress", ALL_STRESS], &every_free_amount(36)).expect(0, "139\n");
}

/// Panics that are recovered across C frames run what those frames have registered for the case of
/// an exception: Go itself drops such frames (its issue 16150).
#[test]
fn panics_run_the_cleanups_of_c_frames() {
    let go = "package main\n\n// void callBack(int n);\n// int cleanups(void);\nimport \"C\"\n\n\
              import \"fmt\"\n\n\
              //export goPanic\nfunc goPanic(n C.int) {\n\tif n == 0 {\n\t\tpanic(\"bottom\")\n\
              \t}\n\tC.callBack(n - 1)\n}\n\n\
              func try(n C.int) (r interface{}) {\n\tdefer func() { r = recover() }()\n\
              \tC.callBack(n)\n\treturn\n}\n\n\
              func main() {\n\tfor i := C.int(0); i < 50; i++ {\n\
              \t\tif r := try(i); r != \"bottom\" {\n\t\t\tpanic(r)\n\t\t}\n\t}\n\
              \tfmt.Println(C.cleanups())\n}\n";
    let c = "#include \"_cgo_export.h\"\n\nstatic int count;\n\nstatic void clean(int *n)\n\
             {\n    count += *n;\n}\n\n\
             void callBack(int n)\n\
             {\n    __attribute__((cleanup(clean))) int one = 1;\n    goPanic(n);\n    one = 2;\n\
             }\n\n\
             int cleanups(void)\n{\n    return count;\n}\n";
    let own = directory("cleanups");
    fs::write(own.join("cleanups.c"), c).unwrap();
    let file = own.join("cleanups.go");
    fs::write(&file, go).unwrap();
    for options in [&[][..], &["--stress", ALL_STRESS]] {
        minigo(options, &file).expect(0, "1275\n");
    }
}

/// C++ exceptions become panics where Go called the code that threw; panics run C++ destructors.
#[test]
fn exceptions_and_panics_pass_through_cxx_and_go() {
    if std::process::Command::new("c++").arg("--version").output().is_err() {
        println!("skipped: there is no C++ compiler");
        return;
    }
    let go = "package main\n\n// #ifdef __cplusplus\n// extern \"C\" {\n// #endif\n\
              // void thrower(int n, int panics);\n// int objects(void);\n\
              // #ifdef __cplusplus\n// }\n// #endif\nimport \"C\"\n\nimport \"fmt\"\n\n\
              //export goCall\nfunc goCall(n, panics C.int) {\n\tif n == 0 {\n\
              \t\tpanic(\"Go's own\")\n\t}\n\tC.thrower(n-1, panics)\n}\n\n\
              func try(n, panics C.int) (r interface{}) {\n\tdefer func() { r = recover() }()\n\
              \tC.thrower(n, panics)\n\treturn\n}\n\n\
              func main() {\n\tfor i := C.int(0); i < 20; i++ {\n\t\ta, b := try(i, 0), try(i, 1)\n\
              \t\tif i%10 == 3 {\n\
              \t\t\tfmt.Println(a, b)\n\t\t}\n\t}\n\tfmt.Println(C.objects())\n}\n";
    let cxx = "#include \"_cgo_export.h\"\n#include <stdexcept>\n\nstatic int alive;\n\n\
               struct Object {\n    Object() { alive++; }\n    ~Object() { alive--; }\n};\n\n\
               extern \"C\" void thrower(int n, int panics)\n\
               {\n    Object object;\n    if (n == 0 && !panics)\n\
               \x20       throw std::runtime_error(\"C++\");\n    goCall(n, panics);\n}\n\n\
               extern \"C\" int objects(void)\n{\n    return alive;\n}\n";
    let own = directory("exceptions");
    fs::write(own.join("exceptions.cc"), cxx).unwrap();
    let file = own.join("exceptions.go");
    fs::write(&file, go).unwrap();
    for options in [&[][..], &["--threads", "4"], &["--stress", ALL_STRESS]] {
        let line = "C++ exception of type std::runtime_error Go's own\n";
        minigo(options, &file).expect(0, &format!("{line}{line}0\n"));
    }
}

/// However many panics are recovered across callbacks: stacks, stubs and goroutines are given back.
#[test]
#[cfg_attr(
    any(stackmark_asan, stackmark_tsan),
    ignore = "at full size only, and a sanitizer keeps freed memory"
)]
fn panics_across_callbacks_lose_nothing() {
    let statistics = |size| {
        Program::with_c("panic_across_callback")
            .statistics(&["--stress", "barrier-every-frame"], size)
    };
    let (few, many) = (statistics(Size::Stress), statistics(Size::Full));
    for same in ["stacks.resident_bytes", "barriers.pool_exhausted"] {
        assert_eq!(number(&few, same), number(&many, same), "{same}");
    }
}

/// Barriers meet all that can happen to one where panics leave frames of stacks that move.
#[test]
fn barriers_are_placed_hit_moved_and_leapfrogged() {
    let counts = Program::with_c("panic_across_callback")
        .statistics(&["--threads", "1", "--stress", ALL_STRESS], Size::Stress);
    let paths = ["barriers.placed", "barriers.hit", "barriers.leapfrogged", "barriers.moved"];
    for path in paths {
        let count = number(&counts, path);
        println!("{path} {count}");
        assert!(count > 0, "{path}");
    }
}

/// What is wrong on the C side is said with its place, before anything runs.
#[test]
fn mistakes_in_c_are_errors_with_their_place() {
    for (name, source, wanted) in [
        (
            "syntax",
            "package main\n\n// int f(;\nimport \"C\"\n\nfunc main() { C.f() }\n",
            "syntax.go:3:",
        ),
        (
            "missing",
            "package main\n\nimport \"C\"\n\nfunc main() {\n\tC.nothing()\n}\n",
            "missing.go:6:2: C.nothing is not",
        ),
        (
            "variable",
            "package main\n\n// int v;\nimport \"C\"\n\nfunc main() { C.v() }\n",
            "variable.go:6:15: invalid operation: cannot call non-function C.v",
        ),
        (
            "errno",
            "package main\n\n// #include <errno.h>\nimport \"C\"\n\n\
             func main() { println(C.errno) }\n",
            "errno.go:6:23: C.errno cannot be used",
        ),
        (
            "expression",
            "package main\n\n// int x;\n// #define Y (x + 1)\nimport \"C\"\n\n\
             func main() { println(C.Y) }\n",
            "expression.go:7:23: C.Y is an expression in C",
        ),
        (
            "variadic",
            "package main\n\n// #include <stdio.h>\nimport \"C\"\n\n\
             func main() { C.printf(nil) }\n",
            "variadic.go:6:15: C.printf: a C function with a variable number",
        ),
        (
            "types",
            "package main\n\n// static int f(int x) { return x; }\nimport \"C\"\n\n\
             func main() { s := \"x\"; C.f(s) }\n",
            "types.go:6:29: cannot use s (variable of type string) as main.C.int value in argument \
             to C.f",
        ),
        (
            "count",
            "package main\n\n// static int f(int x) { return x; }\nimport \"C\"\n\n\
             func main() { C.f() }\n",
            "count.go:6:",
        ),
        (
            "include",
            "package main\n\n// #include <no_such_file.h>\nimport \"C\"\n\nfunc main() {}\n",
            "include.go:3:",
        ),
        (
            "undefined",
            "package main\n\n// int f(void);\nimport \"C\"\n\nfunc main() { C.f() }\n",
            "undefined",
        ),
        (
            "export",
            "package main\n\nimport \"C\"\n\n//export f\n\nfunc main() {}\n",
            "export.go:5: export comment refers to a missing function f",
        ),
        (
            "exported",
            "package main\n\nimport \"C\"\n\n//export f\nfunc f(x []int) {}\n\nfunc main() {}\n",
            "exported.go:5: f: C has no type for one",
        ),
        (
            "directive",
            "package main\n\n// #cgo NOTHING: x\nimport \"C\"\n\nfunc main() {}\n",
            "directive.go:3: unknown directive",
        ),
    ] {
        let file = directory(&format!("mistake_{name}")).join(format!("{name}.go"));
        fs::write(&file, source).unwrap();
        let outcome = minigo(&[], &file);
        outcome.expect(1, "").expect_stderr(wanted);
        assert!(!outcome.stderr.contains("panicked"), "{}\n{}", outcome.command, outcome.stderr);
    }
}
