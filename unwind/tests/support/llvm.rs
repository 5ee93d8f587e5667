//! Programs in LLVM's language, compiled by its tools and loaded.

use std::ffi::CString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// The tools of one version of LLVM.
#[allow(dead_code, reason = "each test uses its part")]
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// What follows the name of each tool: `-14`, or nothing.
    suffix: String,
    /// Its pointers have no type of what they point to.
    pub(crate) opaque_pointers: bool,
}

#[allow(dead_code, reason = "each test uses its part")]
impl Tools {
    /// Those of each version that is installed.
    pub(crate) fn installed() -> Vec<Tools> {
        let versions = (13..40).filter(|version| {
            let version = Command::new(format!("llc-{version}")).arg("--version").output();
            version.is_ok_and(|output| output.status.success())
        });
        let tools =
            |version| Tools { suffix: format!("-{version}"), opaque_pointers: version >= 15 };
        versions.map(tools).collect()
    }

    /// The version's name, for files and messages.
    pub(crate) fn name(&self) -> String {
        format!("llvm{}", self.suffix)
    }
}

/// A loaded program. It stays loaded.
pub(crate) struct Library {
    handle: *mut libc::c_void,
    /// The addresses of its functions by name.
    #[allow(dead_code, reason = "each test uses its part")]
    pub(crate) functions: Vec<(String, Range<usize>)>,
    /// Its section of stack maps.
    #[allow(dead_code, reason = "each test uses its part")]
    pub(crate) stack_maps: &'static [u8],
    /// The sizes of its variables by name.
    variables: Vec<(String, usize)>,
    directory: PathBuf,
}

// SAFETY: the handle of the loader, which any thread may use.
unsafe impl Sync for Library {}

impl Library {
    /// The address of a function or variable that the program exports.
    pub(crate) fn address(&self, name: &str) -> usize {
        let name = CString::new(name).expect("a name");
        // SAFETY: the library stays open.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) } as usize;
        assert_ne!(address, 0, "{name:?} is exported");
        address
    }

    /// The size of a variable of the program, in bytes.
    #[allow(dead_code, reason = "each test uses its part")]
    pub(crate) fn variable(&self, name: &str) -> usize {
        self.variables.iter().find(|variable| variable.0 == name).expect("a variable").1
    }
}

/// The file goes with the value.
impl Drop for Library {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Compiles `program` with these options for `llc`, and loads it. Calls become statepoints, unless
/// the program has statepoints of its own. `None`, with a message, if a tool is missing.
#[allow(dead_code, reason = "each test uses its part")]
pub(crate) fn load(name: &str, program: &str, options: &[&str]) -> Option<Library> {
    let tools = Tools { suffix: String::new(), opaque_pointers: false };
    let rewrite: Option<&[&str]> = (!program.contains("gc.statepoint")).then_some(&[]);
    load_with(&tools, name, program, rewrite, options, &[])
}

/// As [`load`], with these tools. Calls become statepoints by `opt` with the options of `rewrite`,
/// if it has any. `link` is for the linker.
pub(crate) fn load_with(
    tools: &Tools,
    name: &str,
    program: &str,
    rewrite: Option<&[&str]>,
    options: &[&str],
    link: &[&str],
) -> Option<Library> {
    load_objects(tools, name, &[program], rewrite, options, link)
}

/// As [`load_with`], with an object for each program.
pub(crate) fn load_objects(
    tools: &Tools,
    name: &str,
    programs: &[&str],
    rewrite: Option<&[&str]>,
    options: &[&str],
    link: &[&str],
) -> Option<Library> {
    // The loader takes a library of the same path for the same library.
    static LOADED: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only the numbers' being distinct matters.
    let number = LOADED.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let directory = std::env::temp_dir().join(format!("stackmark-llvm-{name}-{process}-{number}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let compiled = compile(tools, &directory, programs, rewrite, options, link);
    if compiled.is_none() {
        let _ = std::fs::remove_dir_all(&directory);
    }
    compiled.map(|()| open(directory))
}

fn compile(
    tools: &Tools,
    directory: &Path,
    programs: &[&str],
    rewrite: Option<&[&str]>,
    options: &[&str],
    link: &[&str],
) -> Option<()> {
    let run = |tool: &str, arguments: &[&str]| {
        let Ok(status) = Command::new(tool).args(arguments).current_dir(directory).status() else {
            eprintln!("skipped: {tool} is missing");
            return None;
        };
        assert!(status.success(), "{tool} {arguments:?}");
        Some(())
    };
    let tool = |tool: &str, arguments: &[&str]| run(&format!("{tool}{}", tools.suffix), arguments);
    let mut linked = Vec::new();
    for (i, program) in programs.iter().enumerate() {
        let file = |name: &str| format!("{i}{name}");
        let (mut source, object, mapped) = (file("a.ll"), file("b.o"), file("c.o"));
        std::fs::write(directory.join(&source), program).expect("a file");
        if let Some(options) = rewrite {
            let written = file("b.ll");
            let pass = ["-passes=rewrite-statepoints-for-gc", "-S", "-o", &written, &source];
            tool("opt", &[options, &pass].concat())?;
            source = written;
        }
        // For the processor of this test, which a program may play.
        let target = format!("-mtriple={}-unknown-linux-gnu", std::env::consts::ARCH);
        let to_object = ["-O2", "-relocation-model=pic", "-filetype=obj", "-o", &object, &source];
        tool("llc", &[options, &[&target], &to_object].concat())?;
        // The loader then maps and relocates the section.
        let writable = ["--set-section-flags", ".llvm_stackmaps=alloc,data", &object, &mapped];
        tool("llvm-objcopy", &writable)?;
        linked.push(mapped);
    }
    let linked: Vec<&str> = linked.iter().map(String::as_str).collect();
    let linker = match std::env::var("STACKMARK_TEST_TOOLS") {
        Ok(prefix) => format!("{prefix}gcc"),
        Err(_) => "cc".into(),
    };
    run(&linker, &[&["-shared", "-o", "a.so"], &*linked, link].concat())
}

fn open(directory: PathBuf) -> Library {
    let path = directory.join("a.so");
    let bytes = std::fs::read(&path).expect("the library");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let name = CString::new(path.to_str().expect("a path in UTF-8")).expect("a path");
    // SAFETY: a library without initialisers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null(), "{} can be loaded", path.display());
    let exported =
        file.dynamic_symbols().find(|symbol| symbol.is_definition()).expect("something exported");
    let mut library = Library {
        handle,
        functions: Vec::new(),
        stack_maps: &[],
        variables: Vec::new(),
        directory,
    };
    let bias = library.address(exported.name().expect("a name")) - exported.address() as usize;
    for symbol in
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
    {
        let start = bias + symbol.address() as usize;
        library
            .functions
            .push((symbol.name().expect("a name").into(), start..start + symbol.size() as usize));
    }
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Data) {
        library.variables.push((symbol.name().expect("a name").into(), symbol.size() as usize));
    }
    let section = file.section_by_name(".llvm_stackmaps").expect("stack maps");
    let start = bias + section.address() as usize;
    // SAFETY: the section is loaded, as its flags say, relocated, and stays.
    library.stack_maps =
        unsafe { std::slice::from_raw_parts(start as *const u8, section.size() as usize) };
    library
}
