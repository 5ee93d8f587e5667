//! Two backtraces of one process: its own, and gdb's.
//!
//! Another test of the same binary is the subject. It walks its stack, [reports](report) what it
//! has found, and reaches a breakpoint in the function that has walked.

use std::process::Command;

/// The environment variable that names the subject to run.
pub(crate) const SUBJECT: &str = "STACKMARK_SUBJECT";

/// The environment variable with the subject's argument.
#[allow(dead_code, reason = "not every subject needs something")]
pub(crate) const ARGUMENT: &str = "STACKMARK_SUBJECT_ARGUMENT";

/// A frame's caller: the return address, and whether it is the frame of a signal.
pub(crate) type Caller = (usize, bool);

/// Where gdb stops.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn stackmark_test_stop() {
    std::hint::black_box(());
}

/// Reports to the test that runs gdb what was found: the callers of the function that calls this,
/// and then [`stackmark_test_stop`] itself.
pub(crate) fn report(callers: &[Caller]) {
    let words: Vec<String> =
        callers.iter().map(|(pc, signal)| format!("{pc:x}:{}", u8::from(*signal))).collect();
    println!("\nwalked {}", words.join(" "));
}

/// Runs the test `test` of this binary under gdb, as that subject. Yields what it has found itself
/// and what gdb finds. `None`, with a message, where gdb or its Python is missing.
pub(crate) fn both(
    test: &str,
    subject: &str,
    argument: &str,
) -> Option<(Vec<Caller>, Vec<Caller>)> {
    if std::env::var_os("STACKMARK_TEST_EMULATOR").is_some() {
        eprintln!("skipped: gdb sees the emulator");
        return None;
    }
    let python = Command::new("gdb").args(["-batch", "-nx", "-ex", "python print(6 * 7)"]).output();
    if !python.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("42")) {
        eprintln!("skipped: gdb with Python is missing");
        return None;
    }
    // gdb adds inlined functions and tail callers from debug information. They have no frame.
    let frames = "python\n\
        frame = gdb.newest_frame()\n\
        found = []\n\
        while frame is not None:\n\
        \x20   if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):\n\
        \x20       found.append('%x:%d' % (frame.pc(), frame.type() == gdb.SIGTRAMP_FRAME))\n\
        \x20   frame = frame.older()\n\
        print('\\ngdb ' + ' '.join(found))\n";
    let script =
        std::env::temp_dir().join(format!("stackmark-gdb-{subject}-{}", std::process::id()));
    std::fs::write(&script, frames).expect("a file");
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx"]);
    for line in [
        "set confirm off",
        "set pagination off",
        "set debuginfod enabled off",
        "set print thread-events off",
        "set backtrace past-main on",
        "set backtrace past-entry on",
        "set breakpoint pending on",
        "handle SIGUSR1 nostop noprint pass",
        "break stackmark_test_stop",
        "run",
        &format!("source {}", script.display()),
        "kill",
    ] {
        gdb.args(["-ex", line]);
    }
    gdb.arg("--args").arg(std::env::current_exe().expect("this binary"));
    gdb.args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(SUBJECT, subject)
        .env(ARGUMENT, argument);
    let output = gdb.output().expect("gdb, which was there");
    let _ = std::fs::remove_file(&script);
    let text = String::from_utf8_lossy(&output.stdout);
    let callers = |prefix: &str| -> Vec<Caller> {
        let line = text.lines().find_map(|line| line.strip_prefix(prefix));
        let line = line.unwrap_or_else(|| {
            panic!("no line {prefix:?} in\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
        let caller = |word: &str| {
            let (pc, signal) = word.split_once(':')?;
            Some((usize::from_str_radix(pc, 16).ok()?, signal == "1"))
        };
        line.split(' ').map(|word| caller(word).expect("an address")).collect()
    };
    let (walked, mut by_gdb) = (callers("walked "), callers("gdb "));
    // The breakpoint, and the function that has walked.
    by_gdb.drain(..2);
    Some((walked, by_gdb))
}
