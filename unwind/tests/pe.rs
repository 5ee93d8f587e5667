//! Images in Microsoft's format, read on another system: every instruction of what its compilers
//! make, compared with another reader; rare forms; broken images.
// Elsewhere the format has UNWIND_INFO of other forms. Wine runs no compilers.
#![cfg(all(target_arch = "x86_64", not(windows)))]

#[path = "support/pe_reference.rs"]
mod pe_reference;
#[path = "support/programs.rs"]
mod programs;

use std::collections::HashMap;
use std::path::Path;

use object::{Object, ObjectSymbol};
use pe_reference::Reference;
use programs::Directory;
use proptest::prelude::*;
use stackmark_unwind::{
    Code, CodeError, Function, FunctionUnwindInfo, Image, ImageError, Region, RegionError,
    RegisterSet, UnwindInfoError,
};

const GCC: &str = "x86_64-w64-mingw32-gcc";
const GXX: &str = "x86_64-w64-mingw32-g++";

/// Compares all instructions of an image. Yields how many there are.
fn compare(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let open = || Image::open(path, 0, &[]).unwrap();
    let (single, compiled) = (open(), open());
    compiled.compile().unwrap();
    let reference = Reference::read(&bytes).unwrap();
    let mut count = 0;
    for function in &reference.functions {
        for at in reference.instructions(function) {
            let pc = (reference.base() + u64::from(at)) as usize;
            let rule = single.rule(pc).unwrap().expect("code of a function");
            assert_eq!(compiled.rule(pc).unwrap().as_ref(), Some(&rule), "{pc:#x}");
            let agrees = reference.agrees(*function, at, &rule);
            assert!(agrees, "{} at {pc:#x}: {rule}", path.display());
            count += 1;
        }
    }
    count
}

#[test]
fn what_compilers_make_is_walked_as_the_system_would() {
    let directory = Directory::new("pe-compilers");
    directory.write("frames.c", include_str!("pe/frames.c"));
    directory.write("throws.cc", include_str!("pe/throws.cc"));
    let forms: [&[&str]; 5] =
        [&["-O0"], &["-O2"], &["-O3"], &["-O2", "-fno-omit-frame-pointer"], &["-Os", "-mavx2"]];
    let mut count = 0;
    for (i, form) in forms.into_iter().enumerate() {
        let (dll, exe) = (format!("{i}.dll"), format!("{i}.exe"));
        if !directory.run(GCC, &[form, &["-shared", "-o", &dll, "frames.c"]].concat()) {
            return;
        }
        count += compare(&directory.0.join(dll));
        if directory.run(GXX, &[form, &["-o", &exe, "throws.cc"]].concat()) {
            count += compare(&directory.0.join(exe));
        }
    }
    assert!(count > 10_000, "{count}");
}

/// Libraries of the compiler, which are linked otherwise, and of wine.
#[test]
fn libraries_are_walked_as_the_system_would() {
    let output = programs::command(GCC).arg("-print-file-name=libgcc_s_seh-1.dll").output();
    let gcc = output.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    let wine = |name| format!("/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/{name}.dll");
    for path in [gcc.trim().to_owned(), wine("kernel32"), wine("msvcrt"), wine("user32")] {
        let path = Path::new(&path);
        if path.is_absolute() && path.exists() {
            assert!(compare(path) > 1_000, "{}", path.display());
        } else {
            eprintln!("skipped: {} is missing", path.display());
        }
    }
}

/// The image of `pe/forms.s`, and the addresses of its symbols.
fn forms(directory: &Directory) -> Option<(Vec<u8>, HashMap<String, usize>)> {
    directory.write("forms.s", include_str!("pe/forms.s"));
    let options = ["-shared", "-nostdlib", "-Wl,--entry=0", "-o", "forms.dll", "forms.s"];
    if !directory.run(GCC, &options) {
        return None;
    }
    let bytes = std::fs::read(directory.0.join("forms.dll")).unwrap();
    let symbols = {
        let file = object::File::parse(&*bytes).unwrap();
        let named = file.symbols().map(|s| (s.name().unwrap().to_owned(), s.address() as usize));
        named.collect()
    };
    Some((bytes, symbols))
}

#[test]
fn rare_forms_are_read() {
    let directory = Directory::new("pe-forms");
    let Some((bytes, symbols)) = forms(&directory) else { return };
    let image = Image::from_pe("forms", &bytes, 0x10_0000).unwrap();
    let rule = |name: &str, offset: usize| {
        let rule = image.rule(symbols[name] + 0x10_0000 + offset).unwrap();
        rule.expect("it is code").to_string().to_lowercase()
    };
    let interrupted = "signal frame, cfa=rsp+56 rbx=[cfa-56] rsp=[cfa-16] ra=[cfa-40]";
    assert_eq!(rule("interrupted", 1), interrupted);
    assert_eq!(rule("interrupted", 0), "signal frame, cfa=rsp+48 rsp=[cfa-16] ra=[cfa-40]");
    assert_eq!(rule("leaf", 0), "cfa=sp+8 ra=[cfa-8]");
    assert_eq!(rule("leaf", 4), "cfa=sp+8 ra=[cfa-8]");

    let whole = "cfa=sp+48 rbx=[cfa-16] ra=[cfa-8]";
    assert_eq!(rule("parted", 0), "cfa=sp+8 ra=[cfa-8]");
    assert_eq!(rule("parted", 1), "cfa=sp+16 rbx=[cfa-16] ra=[cfa-8]");
    assert_eq!(rule("parted_jump", 0), whole);
    assert_eq!(rule("parted_back", 0), whole);
    assert_eq!(rule("parted_back", 4), "cfa=sp+16 rbx=[cfa-16] ra=[cfa-8]");
    assert_eq!(rule("parted_back", 5), "cfa=sp+8 ra=[cfa-8]");
    assert_eq!(rule("parted_cold", 0), whole);
    assert_eq!(rule("parted_saved", 0), "cfa=rsp+48 rbx=[cfa-16] rsi=[cfa-40] ra=[cfa-8]");
    assert_eq!(rule("elsewhere", 1), whole);

    let whole = "cfa=sp+56 rbx=[cfa-16] r12=[cfa-24] ra=[cfa-8]";
    for name in ["marked_first", "marked_last"] {
        let before = symbols[name] - 4 - symbols["marked"];
        assert_eq!(rule("marked", before), whole);
        assert_eq!(rule(name, 0), "cfa=sp+24 rbx=[cfa-16] r12=[cfa-24] ra=[cfa-8]");
        assert_eq!(rule(name, 2), "cfa=sp+16 rbx=[cfa-16] ra=[cfa-8]");
        assert_eq!(rule(name, 3), "cfa=sp+8 ra=[cfa-8]");
    }

    // The last byte of the call is not taken for the first one of the epilogue.
    let call = symbols["misleading_return"] - symbols["misleading"] - 1;
    assert_eq!(rule("misleading", call), "cfa=sp+16 rbx=[cfa-16] ra=[cfa-8]");
    assert_eq!(rule("misleading_return", 1), "cfa=sp+8 ra=[cfa-8]");

    let compiled = Image::from_pe("forms", &bytes, 0x10_0000).unwrap();
    compiled.compile().unwrap();
    for pc in image.code().iter().cloned().flatten() {
        assert_eq!(compiled.rule(pc), image.rule(pc), "{pc:#x}");
    }
}

/// Looks everything up. Nothing panics.
fn look(bytes: &[u8]) {
    let Ok(image) = Image::from_pe("broken", bytes, 0x1000) else { return };
    for range in image.code().to_vec() {
        for pc in range.step_by(3).take(500) {
            if let Ok(Some(rule)) = image.rule(pc) {
                let _ =
                    rule.evaluate(&RegisterSet::new(pc, 0x1000, 0x1008), &pe_reference::Everywhere);
                let _ = rule.to_string();
            }
        }
    }
    let _ = image.functions();
    let _ = image.compile();
}

#[test]
fn broken_images_are_errors() {
    let directory = Directory::new("pe-broken");
    let Some((bytes, _)) = forms(&directory) else { return };
    for len in (0..bytes.len()).step_by(7) {
        look(&bytes[..len]);
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
    let changes = prop::collection::vec((0..bytes.len(), any::<u8>()), 1..6);
    let outcome = runner.run(&changes, |changes| {
        let mut bytes = bytes.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        look(&bytes);
        Ok(())
    });
    outcome.unwrap();
    let error = Image::from_pe("text", b"MZ and more", 0).unwrap_err();
    assert!(matches!(error, ImageError::Elf { .. }), "{error}");
}

/// `push rbp; mov rbp, rsp; sub rsp, 32; nop; leave...`, not run.
static CODE: [u8; 16] = [
    0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x90, 0x48, 0x8d, 0x65, 0x00, 0x5d, 0xc3, 0xcc,
];
const INFO: [u8; 12] = [1, 8, 3, 5, 8, 0x32, 4, 0x03, 1, 0x50, 0, 0];

fn region(bytes: &[u8], len: usize) -> Region {
    let start = (&raw const CODE) as usize;
    let unwind_info = vec![FunctionUnwindInfo { start, len, bytes: bytes.to_vec() }];
    Region {
        name: "given".into(),
        start,
        len: CODE.len(),
        unwind_info,
        functions: vec![Function { name: "f".into(), start, len: 15, ..Function::default() }],
        ..Region::default()
    }
}

#[test]
fn a_region_may_have_unwind_info_in_place_of_cfi() {
    let code = Code::new();
    let start = (&raw const CODE) as usize;
    // The code is data of this program, which has no rule there. A copy is code of nobody.
    let copy: &'static [u8; 16] = Box::leak(Box::new(CODE));
    let moved = |mut region: Region| {
        let by = (copy.as_ptr() as usize).wrapping_sub(start);
        region.start = region.start.wrapping_add(by);
        region.functions[0].start = region.start;
        region.unwind_info[0].start = region.start;
        region
    };
    code.register(moved(region(&INFO, 15))).unwrap();
    let snapshot = code.snapshot();
    let at = copy.as_ptr() as usize;
    let rule = |offset: usize| snapshot.rule(at + offset).unwrap().unwrap().to_string();
    assert_eq!(rule(0), "cfa=sp+8 ra=[cfa-8]");
    assert_eq!(rule(1).to_lowercase(), "cfa=sp+16 rbp=[cfa-16] ra=[cfa-8]");
    for offset in [4, 8, 9] {
        assert_eq!(rule(offset).to_lowercase(), "cfa=fp+16 rbp=[cfa-16] ra=[cfa-8]");
    }
    assert_eq!(rule(13).to_lowercase(), "cfa=sp+16 rbp=[cfa-16] ra=[cfa-8]");
    assert_eq!(rule(14), "cfa=sp+8 ra=[cfa-8]");
    assert_eq!(snapshot.rule(at + 15).unwrap(), None);

    let refused = |region| match Code::new().register(moved(region)) {
        Err(CodeError::Region { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let wrong = |source| RegionError::UnwindInfo { start: at, source };
    let cut_off = UnwindInfoError::CutOff { at: 0 };
    assert_eq!(refused(region(&INFO[..9], 15)), wrong(cut_off));
    let mut other = INFO;
    other[0] = 3;
    let version = UnwindInfoError::Version { at: 0, version: 3 };
    assert_eq!(refused(region(&other, 15)), wrong(version));
    other = INFO;
    other[3] = 0;
    assert_eq!(refused(region(&other, 15)), wrong(UnwindInfoError::FrameRegister { at: 0 }));
    other = INFO;
    other[0] |= 8;
    assert_eq!(refused(region(&other, 15)), wrong(UnwindInfoError::NotAlone { at: 0 }));
    let outside = RegionError::UnwindInfoRange { start: at, len: 17 };
    assert_eq!(refused(region(&INFO, 17)), outside);
}
