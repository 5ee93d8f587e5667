//! Managed code of images, registered by one call: of this program itself, and of shared objects
//! that are right, stripped, split or wrong in one place.
// Managed code of images is read from ELF files.
#![cfg(not(windows))]
// Its programs are in assembly for x86-64 and i686.
#![cfg(any(target_arch = "x86_64", target_arch = "x86"))]

#[path = "support/arch.rs"]
mod arch;
#[path = "support/programs.rs"]
mod programs;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use arch::{SP, WORD};
use programs::Directory;
use stackmark_unwind::stack_map::llvm::LlvmError;
use stackmark_unwind::stack_map::object::ObjectMapsError;
use stackmark_unwind::{
    Code, CodeError, ImageError, ManagedImage, ManagedImageError, RegisterImageError,
};

/// Two functions of this program, and their maps. The assembler's names of the stack pointer and of
/// eight bytes with an address, and the bytes that a call pushes.
macro_rules! functions {
    ($sp:literal, $address:literal, $behind:literal, $pushed:literal) => {
        std::arch::global_asm!(
            ".text",
            ".globl managed_images_first",
            ".type managed_images_first, @function",
            "managed_images_first:",
            ".cfi_startproc",
            concat!("sub ", $sp, ", 24\n .cfi_adjust_cfa_offset 24"),
            "call managed_images_second",
            ".Lfirst_return:",
            concat!("add ", $sp, ", 24\n .cfi_adjust_cfa_offset -24"),
            "ret",
            ".cfi_endproc",
            ".size managed_images_first, . - managed_images_first",
            ".globl managed_images_second",
            ".type managed_images_second, @function",
            "managed_images_second:",
            ".cfi_startproc",
            concat!("sub ", $sp, ", 40\n .cfi_adjust_cfa_offset 40"),
            "call managed_images_first",
            ".Lsecond_return:",
            concat!("add ", $sp, ", 40\n .cfi_adjust_cfa_offset -40"),
            "ret",
            ".cfi_endproc",
            ".size managed_images_second, . - managed_images_second",
            // Each has one safepoint with one slot.
            ".section .stackmark_maps, \"awR\", @progbits",
            ".balign 8",
            ".ascii \"SMM1\"\n .long 80, 2, 0",
            concat!($address, " managed_images_first", $behind, "\n .long 1, 0"),
            concat!($address, " managed_images_second", $behind, "\n .long 1, 0"),
            concat!(".long .Lfirst_return - managed_images_first, 24 + ", $pushed, ", 1, 8"),
            concat!(".long .Lsecond_return - managed_images_second, 40 + ", $pushed, ", 1, 16"),
            ".text",
        );
    };
}
#[cfg(target_arch = "x86_64")]
functions!("rsp", ".quad", "", "8");
#[cfg(target_arch = "x86")]
functions!("esp", ".long", ", 0", "4");

unsafe extern "C" {
    fn managed_images_first();
    fn managed_images_second();
}

/// The return address of the one call of a function, and what its map says: CFA and slots.
fn safepoint(code: &Code, function: usize) -> Option<(usize, usize, usize)> {
    let snapshot = code.snapshot();
    let found = (function..function + 32).find_map(|at| Some((at, snapshot.safepoint(at)?)));
    found.map(|(at, safepoint)| (at, safepoint.cfa_offset(), safepoint.roots().count()))
}

#[test]
fn the_code_of_the_program_itself_is_registered_and_forgotten_by_one_call_each() {
    let (first, second) = (managed_images_first as *const (), managed_images_second as *const ());
    let (first, second) = (first as usize, second as usize);
    let code = Code::new();
    let image = code.register_image(first, Some(64)).unwrap();
    let this = std::env::current_exe().unwrap();
    assert_eq!(image.name(), this.display().to_string());
    assert_eq!(image.regions().len(), 1, "functions side by side are one region");
    for (start, name, size, slots) in
        [(first, "managed_images_first", 24, 1), (second, "managed_images_second", 40, 1)]
    {
        assert!(image.holds(start) && image.holds(start + 9));
        assert_eq!(code.snapshot().function(start).unwrap().name, name);
        let (_, cfa_offset, roots) = safepoint(&code, start).unwrap();
        assert_eq!((cfa_offset, roots), (size + WORD, slots), "{name}");
    }
    assert!(!image.holds(second + 64) && !image.holds(first - 1));
    let twice = code.register_image(second, None).unwrap_err();
    assert!(matches!(twice, RegisterImageError::Code(CodeError::Overlap { .. })), "{twice}");
    code.unregister_image(&image).unwrap();
    assert!(code.snapshot().function(first).is_none() && safepoint(&code, second).is_none());
    assert!(matches!(code.unregister_image(&image), Err(CodeError::Unknown(_))));
    code.register_image(second, None).unwrap();
}

/// A shared object, loaded.
struct Library {
    _directory: Directory,
    path: PathBuf,
    /// The address of its function `f`.
    f: usize,
}

impl Library {
    fn register(&self) -> Result<ManagedImage, ManagedImageError> {
        let limit = Some(1024);
        Code::new().register_image(self.f, limit).map_err(|error| match error {
            RegisterImageError::Image(error) => error,
            error => panic!("{error}"),
        })
    }

    fn refusal(&self) -> (ManagedImageError, String) {
        let error = self.register().expect_err("it is wrong");
        let text = error.to_string().replace(&self.path.display().to_string(), "IMAGE");
        (error, text)
    }
}

/// Assembles, links and loads; `None`, with a message, if a tool is missing.
fn library(assembly: &str, options: &[&str]) -> Option<Library> {
    build(assembly, &[], options)
}

/// As [`library`], of several objects: the others by name.
fn library_of(assembly: &str, others: &[(&str, &str)]) -> Option<Library> {
    build(assembly, others, &[])
}

fn build(assembly: &str, others: &[(&str, &str)], options: &[&str]) -> Option<Library> {
    static LOADED: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only the numbers' being distinct matters.
    let directory = Directory::new(&format!("managed-{}", LOADED.fetch_add(1, Ordering::Relaxed)));
    directory.write("a.s", &here(assembly));
    others.iter().for_each(|(name, text)| directory.write(name, &here(text)));
    let names: Vec<&str> = others.iter().map(|(name, _)| *name).collect();
    let loaded = directory.load(&[&["a.s"], &*names, options].concat())?;
    let f = loaded.address("f");
    let files = std::fs::read_dir(&directory.0).unwrap().map(|file| file.unwrap().path());
    let path = files.into_iter().find(|path| path.extension() == Some("so".as_ref())).unwrap();
    Some(Library { _directory: directory, path, f })
}

/// The text for x86-64 as one for this architecture.
fn here(text: &str) -> String {
    if cfg!(target_arch = "x86_64") {
        return text.into();
    }
    let line = |line: &str| {
        // Eight bytes with an address, which has four.
        let words = line.trim_start().strip_prefix(".quad ").and_then(|rest| rest.split_once(", "));
        match words.filter(|(first, _)| first.starts_with(char::is_alphabetic)) {
            Some((address, rest)) => format!(" .long {address}, 0\n .quad {rest}\n"),
            None => format!("{}\n", line.replace("%r", "%e")),
        }
    };
    text.lines().map(line).collect()
}

/// A function `f` with a call in a frame of 24 bytes, and an empty one, `native`, behind it.
const F: &str = "
 .text
 .globl f
 .type f, @function
f: .cfi_startproc
 sub $24, %rsp
 .cfi_adjust_cfa_offset 24
 call *%rax
.Lreturn:
 add $24, %rsp
 .cfi_adjust_cfa_offset -24
 ret
 .cfi_endproc
 .size f, . - f
 .type native, @function
native: .cfi_startproc
 ret
 .cfi_endproc
 .size native, . - native
 .section .note.GNU-stack, \"\", @progbits
";

/// The length of `f`.
const LEN: usize = if WORD == 8 { 11 } else { 9 };

/// A section of LLVM's, with flags, version, stack size, function and return address.
fn llvm(flags: &str, version: u8, size: i64, function: &str, offset: &str, values: &str) -> String {
    let count = values.lines().count();
    format!(
        "
 .section .llvm_stackmaps, \"{flags}\", @progbits
 .balign 8
 .byte {version}, 0, 0, 0
 .long 1, 0, 1
 .quad {function}, {size}, 1
 .quad 7
 .long {offset}
 .short 0, {count}
 {values}
 .balign 8
 .short 0, 0
 .balign 8
"
    )
}

const CONSTANT: &str = ".byte 4, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0\n";
/// The slot so many bytes above the stack pointer.
fn slot(at: u8) -> String {
    format!(".byte 3, 0, {WORD}, 0, {}, 0, 0, 0, {at}, 0, 0, 0\n", SP.0)
}

fn statepoint() -> String {
    [CONSTANT, CONSTANT, CONSTANT, &slot(8), &slot(8)].concat()
}

/// The section of an object that has `f` with two maps: the label behind the call, and the offset
/// of the slot from the stack pointer.
fn two_maps(maps: [(&str, u8); 2]) -> String {
    let maps = maps.map(|(label, at)| {
        let values = [CONSTANT, CONSTANT, CONSTANT, &slot(at), &slot(at)].concat();
        format!(
            " .quad 7\n .long {label} - f\n .short 0, 5\n{values} .balign 8\n .short 0, 0\n \
             .balign 8\n"
        )
    });
    format!(
        " .section .llvm_stackmaps, \"aw\", @progbits\n .balign 8\n .byte 3, 0, 0, 0\n \
         .long 1, 0, 2\n .quad f, 24, 2\n{}",
        maps.concat()
    )
}

/// A right library, but for what `change` does to the section's parts.
fn f_with(section: &str) -> Option<Library> {
    library(&format!("{F}{section}"), &[])
}

fn right() -> String {
    llvm("aw", 3, 24, "f", ".Lreturn - f", &statepoint())
}

#[test]
fn a_library_is_registered_without_what_no_map_names() {
    let Some(library) = f_with(&right()) else { return };
    let image = library.register().unwrap();
    assert!(image.holds(library.f) && !image.holds(library.f + LEN), "`native` is not managed");
    assert_eq!(image.name(), library.path.display().to_string());
}

#[test]
fn a_stripped_library_has_exported_names_and_addresses_for_the_rest() {
    let body = " sub $24, %rsp
 .cfi_adjust_cfa_offset 24
 call *%rax
.Lg:
 ud2
";
    let hidden = F.replace("native", "g");
    let hidden = hidden.replace("g: .cfi_startproc\n", &format!("g: .cfi_startproc\n{body}"));
    let assembly =
        format!("{hidden}{}{}", right(), llvm("aw", 3, 24, "g", ".Lg - g", &statepoint()));
    let Some(library) = library(&assembly, &["-s"]) else { return };
    let code = Code::new();
    let image = code.register_image(library.f, None).unwrap();
    let snapshot = code.snapshot();
    assert_eq!(snapshot.function(library.f).unwrap().name, "f");
    let g = snapshot.function(library.f).unwrap().range.end;
    assert!(image.holds(g));
    assert_eq!(snapshot.function(g).unwrap().name, format!("{g:#x}"));
}

/// A compiler may put blocks that seldom run into a part of their own, with CFI of its own.
#[test]
fn a_call_in_a_part_of_its_function_that_lies_elsewhere_is_a_safepoint() {
    let cold = "
 .text 1
 .type f.cold, @function
f.cold: .cfi_startproc
 .cfi_adjust_cfa_offset 24
 call *%rax
.Lcold:
 jmp .Lreturn
 .cfi_endproc
 .size f.cold, . - f.cold
";
    let both = format!("{cold}{}", two_maps([(".Lreturn", 8), (".Lcold", 8)]));
    let Some(library) = f_with(&both) else { return };
    let code = Code::new();
    let image = code.register_image(library.f, None).unwrap();
    let snapshot = code.snapshot();
    let (low, high) = (library.f & !0xfff, library.f + 0x1000);
    let names: Vec<String> = (low..high)
        .filter(|at| snapshot.safepoint(*at).is_some())
        .map(|at| snapshot.function(at - 1).unwrap().name.to_owned())
        .collect();
    assert!(names.contains(&"f".into()) && names.contains(&"f.cold".into()), "{names:?}");
    assert_eq!(image.regions().len(), 2);
}

#[test]
fn what_is_wrong_with_an_image_is_named_with_section_and_offset() {
    let refusal = |section: &str| f_with(section).map(|library| library.refusal());
    let Some((error, text)) = refusal("") else { return };
    assert!(matches!(error, ManagedImageError::NoMaps { .. }), "{text}");
    assert!(text.contains(".llvm_stackmaps") && text.contains(".stackmark_maps"), "{text}");

    let check = |section: &str, expected: &str| {
        let (error, text) = refusal(section).expect("cc is there");
        assert_eq!(text, expected);
        error
    };
    let values = statepoint();
    // Not loaded, so not relocated.
    let error = check(
        &llvm("", 3, 24, "f", ".Lreturn - f", &values),
        "image IMAGE: section .llvm_stackmaps is not loaded, or lies outside of what is",
    );
    assert!(matches!(error, ManagedImageError::Image(ImageError::NotMapped { .. })));
    let error = check(
        &llvm("aw", 2, 24, "f", ".Lreturn - f", &values),
        "image IMAGE, section .llvm_stackmaps: the stack maps at offset 0x0 have version 2, not 3",
    );
    let version = LlvmError::Version { offset: 0, version: 2 };
    assert!(matches!(error, ManagedImageError::Llvm { source, .. } if source == version));
    let (error, text) =
        refusal(&llvm("aw", 3, 24, "f", ".Lreturn - f", CONSTANT)).expect("cc is there");
    assert!(matches!(error, ManagedImageError::Statepoint { offset: 0x28, .. }), "{text}");
    assert!(text.starts_with("image IMAGE, section .llvm_stackmaps, offset 0x28: the record for "));
    // A function without CFI: the address of data. The second map is the wrong one.
    let wrong = llvm("aw", 3, 24, "somewhere", "1", &values);
    let data = ".data\n .globl somewhere\nsomewhere: .quad 0\n";
    let (error, text) = refusal(&format!("{}{wrong}{data}", right())).expect("cc is there");
    let offset = 0x28 + 88 + 0x28;
    assert!(
        matches!(error, ManagedImageError::NotCovered { offset: at, .. } if at == offset),
        "{text}"
    );
    check(
        &llvm("aw", 3, 2000, "f", ".Lreturn - f", &values),
        &format!(
            "image IMAGE, section .llvm_stackmaps, offset 0x28: function f has a frame of {} \
             bytes; 1024 bytes are allowed",
            2000 + WORD
        ),
    );
    check(
        &llvm("aw", 3, -1, "f", ".Lreturn - f", &values),
        "image IMAGE, section .llvm_stackmaps, offset 0x28: function f has a frame of no fixed \
         size; 1024 bytes are allowed",
    );
    let error = check(
        ".section .stackmark_maps, \"aw\"\n.balign 8\n.quad 0\n.ascii \"SMM2\"\n.long 16, 0, 0\n",
        "image IMAGE, section .stackmark_maps: at offset 0x8 there is no blob of maps of version 1",
    );
    let version = ObjectMapsError::Version { offset: 8 };
    assert!(matches!(error, ManagedImageError::Object { source, .. } if source == version));
}

/// An object with `f` as an inline function: in a COMDAT group, of which the linker keeps one. Two
/// calls in its code have maps; the frame is of 24 bytes. `slots` are the offsets in the two maps.
fn inline(slots: [u8; 2], second_call: &str) -> String {
    let code = format!(
        "
 .section .text.f, \"axG\", @progbits, f, comdat
 .weak f
 .type f, @function
f: .cfi_startproc
 sub $24, %rsp
 .cfi_adjust_cfa_offset 24
 call *%rax
.Lreturn:
 {second_call}
.Lagain:
 add $24, %rsp
 .cfi_adjust_cfa_offset -24
 ret
 .cfi_endproc
 .size f, . - f
 .section .note.GNU-stack, \"\", @progbits
"
    );
    format!("{code}{}", two_maps([(".Lreturn", slots[0]), (".Lagain", slots[1])]))
}

/// Links objects of which each has `f`.
fn with_copies(objects: &[String]) -> Option<Library> {
    let joined: Vec<(String, &String)> =
        objects.iter().enumerate().map(|(i, text)| (format!("{i}.s"), text)).collect();
    let others: Vec<(&str, &str)> =
        joined[1..].iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    library_of(&objects[0], &others)
}

#[test]
fn an_inline_function_of_two_objects_is_registered_once() {
    let copy = inline([8, 16], "call *%rax");
    let Some(library) = with_copies(&[copy.clone(), copy.clone(), copy]) else { return };
    let code = Code::new();
    let image = code.register_image(library.f, Some(1024)).unwrap();
    assert_eq!(image.regions().len(), 1);
    let snapshot = code.snapshot();
    let found = (library.f..library.f + 32).filter(|at| snapshot.safepoint(*at).is_some()).count();
    assert_eq!(found, 2);
}

#[test]
fn copies_of_a_function_that_were_compiled_in_different_ways_are_refused() {
    let first = inline([8, 16], "call *%rax");
    // Other slots at the same calls. Then a call elsewhere, so that no two maps are for one place.
    for other in [inline([8, 0], "call *%rax"), inline([8, 16], "nop\n call *%rax")] {
        let Some(library) = with_copies(&[first.clone(), other]) else { return };
        let (error, text) = library.refusal();
        assert!(matches!(error, ManagedImageError::Copies { first: 0x28, .. }), "{text}");
        assert!(text.contains("function f has other maps here than at offset 0x28"), "{text}");
    }
}

#[test]
fn an_image_whose_file_is_gone_or_another_one_is_refused() {
    let Some(library) = f_with(&right()) else { return };
    let Some(other) = library_with_more_code() else { return };
    std::fs::rename(&other.path, &library.path).unwrap();
    let (error, text) = library.refusal();
    assert!(matches!(error, ManagedImageError::Image(ImageError::Changed { .. })), "{text}");
    std::fs::remove_file(&library.path).unwrap();
    let (error, text) = library.refusal();
    assert!(matches!(error, ManagedImageError::Image(ImageError::File { .. })), "{text}");
    let nowhere = Code::new().register_image(16, None).unwrap_err();
    let image = ImageError::NoImage { address: 16 };
    assert!(
        matches!(&nowhere, RegisterImageError::Image(ManagedImageError::Image(e)) if *e == image),
        "{nowhere}"
    );
}

fn library_with_more_code() -> Option<Library> {
    f_with(&format!("{} .text\n .skip 65536\n", right()))
}
