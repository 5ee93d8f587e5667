//! Images of this process while libraries come and go, images from files with separate and with
//! compressed debug data, and broken images.
// The images of the process are of another format there: see tests/windows.rs.
#![cfg(not(windows))]

#[path = "support/arch.rs"]
mod arch;
#[path = "support/programs.rs"]
mod programs;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use object::{Object, ObjectSection, ObjectSymbol};
use programs::Directory;
use proptest::prelude::*;
use stackmark_unwind::{
    Code, CodeError, Image, ImageError, MemorySnapshot, RegisterSet, RuleCache, UnwindRule,
    Unwinder,
};

/// Where the system has libraries with CFI for this architecture.
#[cfg(target_arch = "x86_64")]
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
#[cfg(target_arch = "x86")]
const LIBRARIES: &str = "/usr/lib32";
#[cfg(target_arch = "aarch64")]
const LIBRARIES: &str = "/usr/lib/aarch64-linux-gnu";

const SOURCE: &str =
    "int through(int (*f)(void)) { volatile int a[100]; a[3] = f(); return a[3] + 1; }";

/// What C says first so that its CFI is loaded. Compilers for armv7 write CFI for debuggers alone,
/// with `-g`.
const LOADS_CFI: &str = match cfg!(target_arch = "arm") {
    true => "__asm__(\".cfi_sections .eh_frame, .debug_frame\");\n",
    false => "",
};

/// Functions of different sizes of frames.
fn functions() -> String {
    let function = |i: usize| {
        let size = 8 * i * i;
        format!(
            "int f{i}(int (*f)(void)) {{ volatile char a[{size} + 1]; a[0] = f(); \
             return a[0]; }}\n"
        )
    };
    (0..FUNCTIONS).map(function).collect()
}
const FUNCTIONS: usize = 20;

/// The system's library of this name, and a function in it.
#[cfg(not(target_arch = "arm"))]
fn library(_directory: &Directory, name: &str) -> Option<(PathBuf, &'static str)> {
    Some((Path::new(LIBRARIES).join(name), "abort"))
}

/// The system's libraries have no CFI, so this is one that does.
#[cfg(target_arch = "arm")]
fn library(directory: &Directory, name: &str) -> Option<(PathBuf, &'static str)> {
    directory.write("library.c", &[LOADS_CFI, &functions()].concat());
    let flags = ["-g", "-O1", "-shared", "-fPIC", "-o", name, "library.c"];
    directory.run("cc", &flags).then(|| (directory.0.join(name), "f7"))
}

fn symbol(path: &Path, name: &str) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let address =
        file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name)).unwrap().address();
    arch::return_address(address as usize)
}

#[test]
fn libraries_that_come_and_go_are_noticed() {
    let directory = Directory::new("dlopen");
    directory.write("a.c", &[LOADS_CFI, SOURCE].concat());
    if !directory.run("cc", &["-g", "-O1", "-shared", "-fPIC", "-o", "a.so", "a.c"]) {
        return;
    }
    let code = Code::new();
    assert!(code.refresh_images());
    let path = CString::new(directory.0.join("a.so").to_str().unwrap()).unwrap();
    // SAFETY: a library without initialisers.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null());
    // SAFETY: a library that is open.
    let through = unsafe { libc::dlsym(library, c"through".as_ptr()) } as usize;
    let through = arch::return_address(through);
    assert!(code.snapshot().image(through).is_none());
    assert!(code.refresh_images());
    let before = code.snapshot();
    assert!(before.image(through).unwrap().name().ends_with("a.so"));
    let rule = before.rule(through).unwrap().unwrap();
    let stack = MemorySnapshot { start: 0x7000, words: vec![] };
    let recovery = rule.evaluate(&RegisterSet::new(through, 0x7000, 0), &stack).unwrap();
    assert_eq!(recovery.cfa, 0x7000 + arch::CALL_PUSHES, "{rule}");
    // SAFETY: no code of the library runs, and no reference to it is left.
    assert_eq!(unsafe { libc::dlclose(library) }, 0);
    // Other tests of this process may have loaded something meanwhile, but this library is gone.
    assert!(code.refresh_images());
    assert!(code.snapshot().image(through).is_none());
    assert!(matches!(code.snapshot().rule(through), Ok(None)));
    // The older snapshot has a copy.
    assert_eq!(before.rule(through).unwrap(), Some(rule));
}

/// Bytes of a function's first instruction.
const ENTERED: usize = if arch::CALL_PUSHES == 0 { 4 } else { 1 };

#[test]
fn debug_files_are_found_by_link_and_by_build_id_and_may_be_compressed() {
    let directory = Directory::new("debug");
    std::fs::write(directory.0.join("a.c"), SOURCE).unwrap();
    let no_tables = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    if !directory.run(
        "cc",
        &[&["-g", "-fPIC", "-shared", "-Wl,--build-id", "-o", "whole.so", "a.c"], &no_tables[..]]
            .concat(),
    ) || !directory
        .run("objcopy", &["--compress-debug-sections=zlib", "whole.so", "compressed.so"])
    {
        return;
    }
    let pc = symbol(&directory.0.join("whole.so"), "through") + ENTERED;
    let open = |name: &str, roots: &[PathBuf]| {
        Image::open(&directory.0.join(name), 0x10_0000, roots).unwrap()
    };
    let rule = |image: &Image| {
        image.rule(0x10_0000 + pc).unwrap().map(|rule: UnwindRule<'_>| rule.to_string())
    };
    let expected = rule(&open("whole.so", &[])).expect("`.debug_frame` covers it");
    assert!(expected.to_lowercase().starts_with("cfa=sp+"), "{expected}");
    assert!(expected.contains("=[cfa-"), "{expected}");
    assert_eq!(rule(&open("compressed.so", &[])), Some(expected.clone()));

    directory.run("objcopy", &["--only-keep-debug", "compressed.so", "a.debug"]);
    directory.run("strip", &["-g", "-o", "stripped.so", "whole.so"]);
    assert_eq!(rule(&open("stripped.so", &[])), None);
    directory.run("objcopy", &["--add-gnu-debuglink=a.debug", "stripped.so", "linked.so"]);
    assert_eq!(rule(&open("linked.so", &[])), Some(expected.clone()));

    let bytes = std::fs::read(directory.0.join("whole.so")).unwrap();
    let id = object::File::parse(&*bytes).unwrap().build_id().unwrap().unwrap().to_vec();
    let hex: String = id[1..].iter().map(|byte| format!("{byte:02x}")).collect();
    let by_id = directory.0.join("root/.build-id").join(format!("{:02x}", id[0]));
    std::fs::create_dir_all(&by_id).unwrap();
    std::fs::rename(directory.0.join("a.debug"), by_id.join(format!("{hex}.debug"))).unwrap();
    assert_eq!(rule(&open("linked.so", &[])), None, "what the link names is gone");
    assert_eq!(rule(&open("stripped.so", &[directory.0.join("root")])), Some(expected));
}

#[test]
fn a_compiled_image_says_what_its_entries_say() {
    let path = std::env::current_exe().unwrap();
    let (single, compiled) =
        (Image::open(&path, 0, &[]).unwrap(), Image::open(&path, 0, &[]).unwrap());
    let size = compiled.compile().unwrap();
    assert!(size > 0 && size < 4 * compiled.cfi_bytes(), "{size}");
    let functions = compiled.functions().unwrap();
    assert!(functions.len() > 100);
    for function in functions.iter().step_by(7) {
        for pc in [function.start, function.start + function.len() / 2, function.end - 1] {
            assert_eq!(single.rule(pc), compiled.rule(pc));
            assert!(single.rule(pc).unwrap().is_some());
        }
    }
    let outside = compiled.code()[0].end + 0x1000_0000;
    assert_eq!(compiled.rule(outside), Ok(None));
}

/// On x86-64 and i686 the stubs of lazily bound calls have a CFA by an expression over the pc:
/// behind the 11th byte of a stub, one word more is pushed.
// The linker describes no stubs.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[test]
fn stubs_of_the_procedure_linkage_table_are_walked_at_every_byte() {
    use arch::WORD;
    let directory = Directory::new("plt");
    let source =
        "int puts(const char *); int rand(void); int f(void) { return puts(\"\") + rand(); }";
    std::fs::write(directory.0.join("a.c"), source).unwrap();
    let flags =
        ["-O1", "-fcf-protection=none", "-fPIC", "-shared", "-Wl,-z,lazy", "-o", "a.so", "a.c"];
    if !directory.run("cc", &flags) {
        return;
    }
    let path = directory.0.join("a.so");
    let bytes = std::fs::read(&path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".plt").unwrap();
    let (start, size) = (section.address() as usize, section.size());
    assert!(size >= 48, "the first entry and two stubs, not {size} bytes");
    let image = Image::open(&path, 0, &[]).unwrap();
    let stack = MemorySnapshot { start: 0x7000, words: vec![0; 16] };
    for at in 0..size as usize {
        // The first entry is `push; jmp`; a stub jumps to it after a push of its own. The others
        // are `jmp; push; jmp`.
        let pushed = match (at / 16, at % 16) {
            (0, 0..6) => 1,
            (0, _) => 2,
            (_, 0..11) => 0,
            _ => 1,
        };
        let pc = start + at;
        let rule = image.rule(pc).unwrap().expect("covered");
        let recovery = rule.evaluate(&RegisterSet::new(pc, 0x7000, 0), &stack).unwrap();
        let expected = 0x7000 + WORD * (pushed + 1);
        assert_eq!(
            (recovery.cfa, recovery.return_slot()),
            (expected, Some(expected - WORD)),
            "byte {at}: {rule}"
        );
    }
}

/// The rules of all functions, as they print.
fn rules(image: &Image) -> Vec<(usize, String)> {
    let mut rules = Vec::new();
    for function in image.functions().unwrap() {
        for pc in function {
            rules.push((pc, image.rule(pc).unwrap().unwrap().to_string()));
        }
    }
    rules
}

#[test]
fn files_without_section_headers_are_read_by_their_program_headers() {
    let directory = Directory::new("sections");
    let Some((whole, _)) = library(&directory, "libgcc_s.so.1") else { return };
    let path = whole.to_str().unwrap();
    if !directory.run("llvm-objcopy", &["--strip-sections", path, "z.so"]) {
        return;
    }
    let stripped = std::fs::read(directory.0.join("z.so")).unwrap();
    let sections = object::File::parse(&*stripped).unwrap().sections().count();
    assert_eq!(sections, 0);
    let stripped = Image::from_elf("z.so", &stripped, 0x1000).unwrap();
    let whole = Image::from_elf("whole", &std::fs::read(whole).unwrap(), 0x1000).unwrap();
    assert!(whole.functions().unwrap().len() >= FUNCTIONS);
    assert_eq!(rules(&stripped), rules(&whole));
    assert_eq!(stripped.code(), whole.code());
}

/// Functions in sections of their own, some without code, in an object file and in the library
/// that is made of it.
#[test]
fn object_files_are_laid_out_and_relocated() {
    let directory = Directory::new("objects");
    directory.write("a.c", &[LOADS_CFI, &functions()].concat());
    directory.write("debug.c", &functions());
    let debug = ["debug.c", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let far: &[&str] = match arch::WORD {
        4 => &["a.c", "-fno-pic"],
        _ => &["a.c", "-fno-pic", "-mcmodel=large"],
    };
    for flags in [&["a.c"][..], &["a.c", "-ffunction-sections"], &debug, far] {
        let common = ["-g", "-O1", "-fPIC", "-c", "-o", "a.o"];
        if !directory.run("cc", &[&common, flags].concat()) {
            return;
        }
        directory.run("cc", &["-shared", "-o", "a.so", "a.o"]);
        let open = |name: &str| Image::open(&directory.0.join(name), 0, &[]).unwrap();
        let (object, library) = (open("a.o"), open("a.so"));
        let file = std::fs::read(directory.0.join("a.o")).unwrap();
        let file = object::File::parse(&*file).unwrap();
        assert_eq!(object.functions().unwrap().len(), FUNCTIONS, "{flags:?}");
        for i in 0..FUNCTIONS {
            let name = format!("f{i}");
            let symbol = file.symbols().find(|symbol| symbol.name() == Ok(&name)).unwrap();
            let section = object.section_address(symbol.section_index().unwrap().0).unwrap();
            let start = section + arch::return_address(symbol.address() as usize);
            assert!(object.holds(start), "{flags:?} {name}");
            let in_library = crate::symbol(&directory.0.join("a.so"), &name);
            for at in 0..symbol.size() as usize {
                let rule = object.rule(start + at).unwrap();
                assert!(rule.is_some(), "{flags:?} {name}+{at}");
                assert_eq!(rule, library.rule(in_library + at).unwrap(), "{flags:?} {name}+{at}");
            }
        }
    }
}

#[test]
fn images_of_another_process_are_traced_over_its_memory() {
    let directory = Directory::new("process");
    let Some((path, function)) = library(&directory, "libc.so.6") else { return };
    let path = &path;
    #[cfg(target_pointer_width = "64")]
    let bias = 0x5555_0000_0000;
    #[cfg(target_pointer_width = "32")]
    let bias = 0x5555_0000;
    let code = Code::new();
    code.add_image(Image::open(path, bias, &[]).unwrap()).unwrap();
    let again = code.add_image(Image::open(path, bias + 0x100, &[]).unwrap());
    assert!(matches!(again, Err(CodeError::Overlap { .. })), "{again:?}");
    // A frame of a function that has just been called by itself.
    let called = bias + symbol(path, function);
    let stack = MemorySnapshot { start: 0x7000, words: vec![called + 2, 0] };
    let mut registers = RegisterSet::new(called, 0x7000, 0);
    // Where a call pushes nothing, the return address is still in its register.
    let return_slot = (arch::CALL_PUSHES != 0).then_some(0x7000);
    if arch::CALL_PUSHES == 0 {
        registers.set(arch::RA, called + 2);
    }
    let snapshot = code.snapshot();
    let mut cache = RuleCache::new();
    let mut trace = Unwinder::new(&snapshot, &mut cache, &stack, (), registers);
    let frame = trace.next_frame().unwrap().unwrap();
    assert_eq!(
        (frame.pc, frame.return_slot, frame.return_address),
        (called, return_slot, called + 2)
    );
}

/// The loader may put an image below the addresses in its file.
#[test]
fn an_image_is_read_wherever_it_lies() {
    let directory = Directory::new("bias");
    directory.write("a.c", &[LOADS_CFI, SOURCE].concat());
    let far = "-Wl,-Ttext-segment=0x40000000";
    if !directory.run("cc", &["-g", "-O1", "-shared", "-fPIC", far, "-o", "a.so", "a.c"]) {
        return;
    }
    let path = directory.0.join("a.so");
    let pc = symbol(&path, "through") + ENTERED;
    let open = |bias: usize| Image::open(&path, bias, &[]).unwrap();
    let (image, expected) = (open(0), open(0).rule(pc).unwrap().unwrap().to_string());
    for bias in [0x1000, 0_usize.wrapping_sub(0x1000), 0_usize.wrapping_sub(0x3fff_0000)] {
        let (single, compiled) = (open(bias), open(bias));
        compiled.compile().unwrap();
        for moved in [single, compiled] {
            let pc = pc.wrapping_add(bias);
            assert!(moved.holds(pc), "{bias:#x}");
            let rule = moved.rule(pc).unwrap().map(|rule| rule.to_string());
            assert_eq!(rule.as_ref(), Some(&expected), "{bias:#x}");
            let (here, there) = (image.functions().unwrap(), moved.functions().unwrap());
            let place = |place: usize| place.wrapping_add(bias);
            let here: Vec<_> = here.iter().map(|f| place(f.start)..place(f.end)).collect();
            assert_eq!(there, here, "{bias:#x}");
        }
    }
}

#[test]
fn what_is_no_image_is_refused() {
    assert!(matches!(Image::from_elf("empty", &[], 0), Err(ImageError::Elf { .. })));
    assert!(matches!(Image::open(Path::new("/nonexistent"), 0, &[]), Err(ImageError::File { .. })));
}

/// A small library with all sections of CFI that images have.
fn small() -> Option<Vec<u8>> {
    static SMALL: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let read = || {
        let directory = Directory::new("small");
        let (path, _) = library(&directory, "libdl.so.2")?;
        Some(std::fs::read(path).unwrap())
    };
    SMALL.get_or_init(read).clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    #[test]
    fn broken_images_yield_errors_or_rules_and_never_a_panic(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        targeted in prop::collection::vec((0..64_usize, any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        bias in any::<usize>(),
    ) {
        let Some(mut bytes) = small() else { return Ok(()) };
        // `mutations` hit the section of CFI and its table, `targeted` the headers.
        let interesting: Vec<usize> = {
            let file = object::File::parse(&*bytes).unwrap();
            let sections = [".eh_frame", ".eh_frame_hdr"].map(|name| {
                file.section_by_name(name).unwrap().file_range().unwrap()
            });
            sections.iter().flat_map(|(at, len)| *at as usize..(at + len) as usize).collect()
        };
        for (at, byte) in mutations {
            bytes[interesting[at.index(interesting.len())]] = byte;
        }
        for (at, byte) in targeted {
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(image) = Image::from_elf("broken", &bytes, bias) {
            for range in image.code().to_vec() {
                for pc in range.step_by(61) {
                    if let Ok(Some(rule)) = image.rule(pc) {
                        let stack = MemorySnapshot { start: 0x1000, words: vec![0x1000; 16] };
                        let registers = RegisterSet::new(pc, 0x1000, 0x1000);
                        let _ = (rule.evaluate(&registers, &stack), rule.to_string());
                    }
                }
            }
            let _ = (image.compile(), image.functions());
        }
    }
}
