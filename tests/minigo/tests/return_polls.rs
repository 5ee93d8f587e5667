//! A recursion that has ended polls on its way back, however it recurs: collections and other
//! goroutines do not wait for all its returns.
#[macro_use]
mod runner;

use runner::{minigo, number};
use serde_json::Value;
use std::fs;
use std::path::Path;

const DEPTH: u32 = 300;

/// Bytes that stacks have moved where each poll moves the stack, in a program that calls
/// `begin(n)`, which calls itself in some way until it calls `end()`.
fn moved_bytes(name: &str, recursion: &str, end: &str) -> u64 {
    let source = format!(
        "package main\n\n{recursion}\n\nfunc end() int {{\n\t{end}\n}}\n\n\
         func main() {{\n\tdefer func() {{ recover() }}()\n\tif begin({DEPTH}) != 1 {{\n\
         \t\tprintln(\"wrong\")\n\t}}\n}}\n"
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("return_polls");
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join(format!("{name}.go"));
    let stats = directory.join(format!("{name}.json"));
    fs::write(&program, source).unwrap();
    let options =
        ["--stress", "move-every-poll", "--threads", "1", "--stats", stats.to_str().unwrap()];
    minigo(&options, &program).expect(0, "");
    let stats: Value = serde_json::from_str(&fs::read_to_string(stats).unwrap()).unwrap();
    number(&stats, "stacks.moved_bytes")
}

/// How many times as much is moved if the recursion returns as if it does not, in percent.
fn return_polls(name: &str, recursion: &str) -> u64 {
    let returns = moved_bytes(name, recursion, "return 1");
    let ends = moved_bytes(&format!("{name}_ends"), recursion, "panic(0)");
    returns * 100 / ends
}

/// Each program recurs in its own way.
const RECURSIONS: [(&str, &str); 8] = [
    (
        "itself",
        "func begin(n int) int {\n\tif n == 0 {\n\t\treturn end()\n\t}\n\treturn begin(n-1) + 0\n}",
    ),
    (
        "each_other",
        "func begin(n int) int {\n\treturn other(n) + 0\n}\n\n\
         func other(n int) int {\n\tif n == 0 {\n\t\treturn end()\n\t}\n\treturn begin(n-1) + 0\n}",
    ),
    (
        "a_literal",
        "func begin(n int) int {\n\tvar f func(int) int\n\tf = func(n int) int {\n\
         \t\tif n == 0 {\n\t\t\treturn end()\n\t\t}\n\t\treturn f(n-1) + 0\n\t}\n\treturn f(n)\n}",
    ),
    (
        "a_variable",
        "var next func(int) int\n\nfunc init() {\n\tnext = begin\n}\n\n\
         func begin(n int) int {\n\tif n == 0 {\n\t\treturn end()\n\t}\n\treturn next(n-1) + 0\n}",
    ),
    (
        "an_interface",
        "type node interface{ down(n int) int }\ntype leaf struct{ self node }\n\n\
         func (l *leaf) down(n int) int {\n\tif n == 0 {\n\t\treturn end()\n\t}\n\
         \treturn l.self.down(n-1) + 0\n}\n\n\
         func begin(n int) int {\n\tl := &leaf{}\n\tl.self = l\n\treturn l.down(n)\n}",
    ),
    (
        "a_method_value",
        "type t struct{ f func(int) int }\n\nfunc (x *t) down(n int) int {\n\
         \tif n == 0 {\n\t\treturn end()\n\t}\n\treturn x.f(n-1) + 0\n}\n\n\
         func begin(n int) int {\n\tx := &t{}\n\tx.f = x.down\n\treturn x.down(n)\n}",
    ),
    (
        "a_deferred_call",
        "func begin(n int) int {\n\tr := 0\n\tdown(n, &r)\n\treturn r\n}\n\n\
         func down(n int, r *int) {\n\tif n == 0 {\n\t\t*r = end()\n\t\treturn\n\t}\n\
         \tdefer down(n-1, r)\n}",
    ),
    (
        "a_literal_of_a_variable",
        "var begin = make_begin()\n\nfunc make_begin() func(int) int {\n\tvar f func(int) int\n\
         \tf = func(n int) int {\n\t\tif n == 0 {\n\t\t\treturn end()\n\t\t}\n\
         \t\treturn f(n-1) + 0\n\t}\n\treturn f\n}",
    ),
];

#[test]
fn each_return_of_a_recursion_is_behind_a_poll() {
    for (name, recursion) in RECURSIONS {
        let percent = return_polls(name, recursion);
        assert!(percent >= 140, "{name}: {percent} % of what the way down moves");
    }
}

/// What is no recursion costs no poll: the chain is as long as the program says.
#[test]
fn calls_that_are_no_recursion_do_not_poll_behind() {
    use std::fmt::Write as _;
    let mut chain = "func begin(n int) int {\n\treturn f0(n) + 0\n}\n".to_owned();
    for i in 0..DEPTH {
        let next = if i + 1 < DEPTH { format!("f{}(n)", i + 1) } else { "end()".to_owned() };
        write!(chain, "\nfunc f{i}(n int) int {{\n\treturn {next} + 0\n}}\n").unwrap();
    }
    let percent = return_polls("chain", &chain);
    assert!(percent <= 110, "{percent} % of what the way down moves");
}
