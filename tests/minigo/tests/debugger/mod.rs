//! gdb as the tests start it.

use std::process::Command;

/// Whether there is no gdb; says so on standard error.
#[allow(dead_code, reason = "one of the tests needs Python in gdb and asks for that")]
pub(crate) fn is_missing() -> bool {
    let missing = Command::new("gdb").arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: gdb is not installed");
    }
    missing
}

/// gdb over minigo, running these commands. The caller adds minigo's arguments.
pub(crate) fn gdb(commands: &[&str]) -> Command {
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx"]);
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
    for line in settings.iter().chain(commands) {
        command.args(["-ex", line]);
    }
    command.arg("--args").arg(env!("CARGO_BIN_EXE_minigo"));
    command
}
