//! Programs that the system's tools build, loaded into this process.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory for one test. It is removed at the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Directory {
        let path =
            std::env::temp_dir().join(format!("stackmark-unwind-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    /// Runs a tool here. Yields false if the tool is missing.
    pub(crate) fn run(&self, tool: &str, arguments: &[&str]) -> bool {
        match command(tool).args(arguments).current_dir(&self.0).status() {
            Ok(status) => {
                assert!(status.success(), "{tool} {arguments:?}");
                true
            }
            Err(_) => {
                eprintln!("skipped: {tool} is missing");
                false
            }
        }
    }

    /// Builds a library with these arguments for the C compiler, and loads it. `None`, with a
    /// message, if there is no compiler.
    pub(crate) fn load(&self, arguments: &[&str]) -> Option<Loaded> {
        // The loader takes a library of the same path for the same library.
        static LOADED: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: only the numbers' being distinct matters.
        let name = format!("{}.so", LOADED.fetch_add(1, Ordering::Relaxed));
        let common = ["-fPIC", "-shared", "-o", &name];
        self.run("cc", &[&common, arguments].concat()).then(|| self.open(&name))
    }

    /// As [`load`](Directory::load); `None` too if the compiler refuses, as with a linker that is
    /// not installed.
    pub(crate) fn load_if_built(&self, arguments: &[&str]) -> Option<Loaded> {
        let arguments = [&["-fPIC", "-shared", "-o", "trial.so"], arguments].concat();
        let mut trial = command("cc");
        let output = trial.args(&arguments).current_dir(&self.0).output().ok()?;
        output.status.success().then(|| self.load(&arguments[4..]))?
    }

    fn open(&self, name: &str) -> Loaded {
        let path = CString::new(self.0.join(name).to_str().unwrap()).unwrap();
        // SAFETY: a library of a test, whose initialisers, if any, are the compiler's.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
        assert!(!handle.is_null(), "{path:?} can be loaded");
        Loaded(handle)
    }
}

/// A tool of the system that the tests run on: where a program plays its processor, one that the
/// environment gives the prefix of.
pub(crate) fn command(tool: &str) -> Command {
    match std::env::var("STACKMARK_TEST_TOOLS") {
        Ok(prefix) if tool == "cc" => Command::new(format!("{prefix}gcc")),
        Ok(prefix) if matches!(tool, "g++" | "objcopy" | "strip") => {
            Command::new(format!("{prefix}{tool}"))
        }
        _ => Command::new(tool),
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A library. It stays loaded.
pub(crate) struct Loaded(*mut libc::c_void);

impl Loaded {
    pub(crate) fn address(&self, name: &str) -> usize {
        let name = CString::new(name).unwrap();
        // SAFETY: the library stays open.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) } as usize;
        assert_ne!(address, 0, "{name:?} is exported");
        address
    }
}
