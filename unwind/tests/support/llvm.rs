//! Programs in LLVM's language, compiled by its tools and loaded.

use std::ffi::CString;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// A loaded program. It stays loaded.
pub(crate) struct Library {
    handle: *mut libc::c_void,
    /// The addresses of its functions by name.
    #[allow(dead_code, reason = "each test uses its part")]
    pub(crate) functions: Vec<(String, Range<usize>)>,
    /// Its section of stack maps.
    pub(crate) stack_maps: &'static [u8],
}

impl Library {
    /// The address of a function or variable that the program exports.
    pub(crate) fn address(&self, name: &str) -> usize {
        let name = CString::new(name).expect("a name");
        // SAFETY: the library stays open.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) } as usize;
        assert_ne!(address, 0, "{name:?} is exported");
        address
    }
}

/// Compiles `program` with these options for `llc`, and loads it. Calls become statepoints, unless
/// the program has statepoints of its own. `None`, with a message, if a tool is missing.
pub(crate) fn load(name: &str, program: &str, options: &[&str]) -> Option<Library> {
    // The loader takes a library of the same path for the same library.
    static LOADED: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only the numbers' being distinct matters.
    let number = LOADED.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let directory = std::env::temp_dir().join(format!("stackmark-llvm-{name}-{process}-{number}"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let library = compile(&directory, program, options).map(|()| open(&directory.join("a.so")));
    let _ = std::fs::remove_dir_all(&directory);
    library
}

fn compile(directory: &Path, program: &str, options: &[&str]) -> Option<()> {
    std::fs::write(directory.join("a.ll"), program).expect("a file");
    let tool = |tool: &str, arguments: &[&str]| {
        let Ok(status) = Command::new(tool).args(arguments).current_dir(directory).status() else {
            eprintln!("skipped: {tool} is missing");
            return None;
        };
        assert!(status.success(), "{tool} {arguments:?}");
        Some(())
    };
    if program.contains("gc.statepoint") {
        std::fs::write(directory.join("b.ll"), program).expect("a file");
    } else {
        tool("opt", &["-passes=rewrite-statepoints-for-gc", "-S", "-o", "b.ll", "a.ll"])?;
    }
    tool(
        "llc",
        &[options, &["-O2", "-relocation-model=pic", "-filetype=obj", "-o", "b.o", "b.ll"]]
            .concat(),
    )?;
    // The loader then maps and relocates the section.
    tool("llvm-objcopy", &["--set-section-flags", ".llvm_stackmaps=alloc,data", "b.o", "c.o"])?;
    tool("cc", &["-shared", "-o", "a.so", "c.o"])
}

fn open(path: &Path) -> Library {
    let bytes = std::fs::read(path).expect("the library");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let name = CString::new(path.to_str().expect("a path in UTF-8")).expect("a path");
    // SAFETY: a library without initialisers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null(), "{} can be loaded", path.display());
    let exported =
        file.dynamic_symbols().find(|symbol| symbol.is_definition()).expect("something exported");
    let mut library = Library { handle, functions: Vec::new(), stack_maps: &[] };
    let bias = library.address(exported.name().expect("a name")) - exported.address() as usize;
    for symbol in
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
    {
        let start = bias + symbol.address() as usize;
        library
            .functions
            .push((symbol.name().expect("a name").into(), start..start + symbol.size() as usize));
    }
    let section = file.section_by_name(".llvm_stackmaps").expect("stack maps");
    let start = bias + section.address() as usize;
    // SAFETY: the section is loaded, as its flags say, relocated, and stays.
    library.stack_maps =
        unsafe { std::slice::from_raw_parts(start as *const u8, section.size() as usize) };
    library
}
