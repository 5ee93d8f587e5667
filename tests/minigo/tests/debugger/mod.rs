//! gdb as the tests start it.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// gdb. Where a program plays the processor, the one that knows the processor that is played.
fn program() -> &'static str {
    if limits::is_emulated() { "gdb-multiarch" } else { "gdb" }
}

/// Whether there is no gdb; says so on standard error.
#[allow(dead_code, reason = "some of the tests need Python in gdb and ask for that")]
pub(crate) fn is_missing() -> bool {
    let missing = Command::new(program()).arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: {} is not installed", program());
    }
    missing
}

/// As [`is_missing`], of a gdb with Python.
#[allow(dead_code, reason = "one of the tests does without Python")]
pub(crate) fn is_missing_with_python() -> bool {
    let mut command = Command::new(program());
    let python = command.args(["-batch", "-nx", "-ex", "python print(6 * 7)"]).output();
    let missing = !python.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("42"));
    if missing {
        eprintln!("skipped: {} with Python is not installed", program());
    }
    missing
}

/// Starts the emulator with a program, and a gdb that it answers. The words after it: the socket
/// between them, how many arguments gdb has, these, and the program with its own.
const CONNECTED: &str = r#"
socket=$1 count=$2; shift 2
for i in $(seq "$count"); do set -- "$@" "$1"; shift; done
own=$(($# - count))
$STACKMARK_TEST_EMULATOR -g "$socket" "${@:1:own}" &
while [ ! -S "$socket" ] && kill -0 $!; do sleep 0.02; done
gdb-multiarch "${@:own + 1}" "$1"
kill $! 2>/dev/null; rm -f "$socket"
"#;

/// gdb over minigo, running these commands. The caller adds minigo's arguments. `$RUN` in a
/// command starts the program; in the environment of gdb's scripts it is how.
pub(crate) fn gdb(commands: &[&str]) -> Command {
    static SOCKETS: AtomicUsize = AtomicUsize::new(0);
    let socket = std::env::temp_dir().join(format!(
        "stackmark-gdb-{}-{}",
        std::process::id(),
        SOCKETS.fetch_add(1, Relaxed)
    ));
    let run = if limits::is_emulated() { "continue" } else { "run" };
    let settings = [
        "set confirm off",
        "set pagination off",
        "set width 0",
        "set debuginfod enabled off",
        // gdb takes main.leaf for a name of another language and shows main[leaf].
        "set print demangle off",
        "set breakpoint pending on",
        "set print thread-events off",
    ];
    let mut arguments = vec!["-batch".to_owned(), "-nx".into()];
    let target = format!("target remote {}", socket.display());
    // Debian has the libraries of what is emulated where they are for a system of that kind.
    let connected = ["set sysroot /", &target];
    let connected = if limits::is_emulated() { &connected[..] } else { &[] };
    for line in settings.iter().chain(connected).chain(commands) {
        arguments.extend(["-ex".into(), line.replace("$RUN", run)]);
    }
    let mut command;
    if limits::is_emulated() {
        command = Command::new("bash");
        command.args(["-c", CONNECTED, "bash"]).arg(&socket).arg(arguments.len().to_string());
        command.args(arguments);
    } else {
        command = Command::new("gdb");
        command.args(arguments).arg("--args");
    }
    command.arg(env!("CARGO_BIN_EXE_minigo")).env("RUN", run);
    command
}
