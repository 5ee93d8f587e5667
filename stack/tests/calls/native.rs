//! C and C++ sources, compiled and loaded for a test.

#[cfg(not(windows))]
mod compiled {
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::ffi::CString;
    use std::path::Path;
    use std::process::Command;

    /// A loaded library. It stays loaded.
    pub(crate) struct Library(*mut libc::c_void);

    impl Library {
        /// Compiles the source of this name here; `None`, said on standard output, if there is no
        /// compiler for it.
        pub(crate) fn load(name: &str) -> Option<Library> {
            // Tests run side by side, and each source is compiled once.
            static LOADED: Mutex<BTreeMap<String, Option<usize>>> = Mutex::new(BTreeMap::new());
            let mut loaded = LOADED.lock();
            let handle = loaded.entry(name.to_owned()).or_insert_with(|| Library::compile(name));
            handle.map(|handle| Library(handle as *mut libc::c_void))
        }

        fn compile(name: &str) -> Option<usize> {
            // Another crate's tests may be these, too.
            let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
            let root = above.find(|root| root.join("stack/tests").is_dir());
            let source = root.expect("the workspace").join("stack/tests/calls").join(name);
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calls_{name}.so"));
            // Other processes may be loading the last one: it is replaced whole.
            let new = library.with_extension(format!("{}", std::process::id()));
            let compiler = if name.ends_with(".cc") { "g++" } else { "cc" };
            // Where a program plays the processor, the compiler for it has a prefix.
            let mut command = match std::env::var("STACKMARK_TEST_TOOLS") {
                Ok(prefix) if compiler == "cc" => Command::new(format!("{prefix}gcc")),
                Ok(prefix) => Command::new(format!("{prefix}{compiler}")),
                Err(_) => Command::new(compiler),
            };
            command.args(["-g", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]);
            // On armv7 compilers write them for C only if asked.
            command.arg("-funwind-tables");
            // What a source asks for in its first line.
            let text = std::fs::read_to_string(&source).expect("a source of this directory");
            let asked = text.lines().next().and_then(|line| line.strip_prefix("// flags: "));
            command.args(asked.unwrap_or_default().split_whitespace());
            // As minigo's: what a sanitizer needs.
            let flags = |name| std::env::var(name).unwrap_or_default();
            command.args(flags("CGO_CFLAGS").split_whitespace()).arg("-o").arg(&new).arg(source);
            if compiler == "g++" {
                command.arg("-lstdc++");
            }
            command.args(flags("CGO_LDFLAGS").split_whitespace());
            match command.status() {
                Ok(status) => assert!(status.success(), "{command:?}"),
                Err(error) => {
                    println!("skipped: {compiler}: {error}");
                    return None;
                }
            }
            std::fs::rename(&new, &library).expect("a directory of ours");
            let path =
                CString::new(library.to_str().expect("a path of this crate")).expect("no NUL");
            // SAFETY: the library's initialisers are the C and C++ runtimes' own.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!handle.is_null(), "{} cannot be loaded", library.display());
            Some(handle as usize)
        }

        /// The address of a function.
        pub(crate) fn function(&self, name: &str) -> *mut libc::c_void {
            let name = CString::new(name).expect("no NUL");
            // SAFETY: a plain look-up.
            let at = unsafe { libc::dlsym(self.0, name.as_ptr()) };
            assert!(!at.is_null(), "{name:?}");
            at
        }
    }
}

/// Compilers of another system do not run here: `tests/windows` runs them before.
#[cfg(windows)]
mod compiled {
    use std::ffi::{CString, c_void};
    use std::os::windows::ffi::OsStrExt;
    use std::path::Path;
    use windows_sys::Win32::Foundation::HMODULE;
    use windows_sys::Win32::System::LibraryLoader::{
        GetProcAddress, LOAD_WITH_ALTERED_SEARCH_PATH, LoadLibraryExW,
    };

    /// A loaded library. It stays loaded.
    pub(crate) struct Library(HMODULE);

    impl Library {
        /// Loads what was made of the source of this name here; `None`, said on standard output, if
        /// nothing was.
        pub(crate) fn load(name: &str) -> Option<Library> {
            let directory = std::env::var_os("STACKMARK_TEST_LIBRARIES");
            let path = Path::new(&directory?).join(name).with_extension("dll");
            if !path.exists() {
                println!("skipped: there is no {}", path.display());
                return None;
            }
            let wide: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
            let (none, flags) = (std::ptr::null_mut(), LOAD_WITH_ALTERED_SEARCH_PATH);
            // SAFETY: the library's initialisers are the C and C++ runtimes' own.
            let handle = unsafe { LoadLibraryExW(wide.as_ptr(), none, flags) };
            assert!(!handle.is_null(), "{}: {}", path.display(), std::io::Error::last_os_error());
            Some(Library(handle))
        }

        /// The address of a function.
        pub(crate) fn function(&self, name: &str) -> *mut c_void {
            let symbol = CString::new(name).expect("no NUL");
            // SAFETY: a plain look-up.
            let found = unsafe { GetProcAddress(self.0, symbol.as_ptr().cast()) };
            found.unwrap_or_else(|| panic!("no {name}")) as *mut c_void
        }
    }
}

pub(crate) use compiled::Library;
