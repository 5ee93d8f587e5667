//! Installs the libraries as an embedder does, compiles programs with them, and runs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The directory of the crate.
pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo puts what it builds for this test.
pub(crate) fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    test.parent().expect("a directory").to_owned()
}

/// A directory of this test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&place).expect("a directory in target");
    place
}

/// The prefix that the libraries are installed below.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch(&format!("prefix-{}", env!("CARGO_CRATE_NAME")));
        let mut install = Command::new(here().join("install"));
        install.env_remove("DESTDIR").env_remove("PREFIX");
        ran(install.arg("--from").arg(built()).arg(&prefix));
        prefix
    })
}

/// Runs a command, which succeeds. Returns what it writes.
#[track_caller]
pub(crate) fn ran(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}{err}");
    out.into_owned()
}

/// What pkg-config says about the installed library.
pub(crate) fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).args(arguments);
    ran(command.arg("stackmark")).split_whitespace().map(str::to_owned).collect()
}

/// The switches that every program and the header are compiled with.
pub(crate) const C: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"];
pub(crate) const CXX: [&str; 5] = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"];

/// Compiles a program of `tests/programs`, with the shared or the static library. Once: tests run
/// side by side.
pub(crate) fn compiled(name: &str, shared: bool) -> Option<PathBuf> {
    static COMPILED: Mutex<BTreeMap<(String, bool), Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compile = || {
        let stem = Path::new(name).file_stem().expect("a name").to_str().expect("UTF-8");
        let program = scratch("programs").join(format!("{stem}-{shared}"));
        compile(name, &program, shared, &[]).then_some(program)
    };
    known.entry((name.to_owned(), shared)).or_insert_with(compile).clone()
}

/// Compiles it to a file of the caller's, with more switches. False without the compilers.
pub(crate) fn compile(name: &str, program: &Path, shared: bool, more: &[String]) -> bool {
    if !has("gcc") || !has("g++") || !has("pkg-config") {
        return false;
    }
    let programs = here().join("tests/programs");
    let source = programs.join(name);
    let is_cxx = source.extension().is_some_and(|extension| extension == "cc");
    let mut command = Command::new(if is_cxx { "g++" } else { "gcc" });
    command.args(if is_cxx { CXX } else { C }).args(["-g", "-O1", "-pthread"]);
    command.args(pkg_config(&["--cflags"])).arg("-o").arg(program);
    command.arg(source).arg(programs.join("managed.s"));
    let library = prefix().join("lib");
    if shared {
        command.args(pkg_config(&["--libs"]));
        command.arg(format!("-Wl,-rpath,{}", library.display()));
    } else {
        let of_system = pkg_config(&["--libs", "--static"]);
        command.arg(library.join("libstackmark.a"));
        command.args(of_system.iter().filter(|switch| *switch != "-lstackmark"));
    }
    ran(command.args(more));
    true
}

/// Whether the tool is there. A test that needs it is skipped otherwise.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no {tool}");
    }
    found
}
