//! How the sources of the workspace are laid out. A check is one test for each crate or directory.

use std::fs;
use std::path::{Path, PathBuf};
use structure::{Import, Kind, Module, Page, circles, crate_tree, imports};

/// Makes tests of a check, each named as the directory that it is about, or with the directory.
macro_rules! check {
    ($check:ident: $($name:ident $(= $directory:literal)?)*) => {
        mod $check {
            $(#[test] fn $name() {
                super::$check([stringify!($name) $(, $directory)?].last().unwrap());
            })*
        }
    };
}

check! {
    no_circles: asm unwind stack gc
    c = "embed/c" cranelift = "embed/cranelift" mmtk = "embed/mmtk"
}
check! { downwards: stack }
check! {
    targets: asm unwind stack gc
    c = "embed/c" cranelift = "embed/cranelift" mmtk = "embed/mmtk"
}
check! { short_lines: asm unwind stack gc embed tests tools fuzz }
check! {
    short_files: asm unwind stack gc
    c = "embed/c" cranelift = "embed/cranelift" mmtk = "embed/mmtk"
}
check! { compiled: asm unwind stack gc embed tests tools }
check! { readmes: asm unwind stack gc cranelift = "embed/cranelift" }

/// The rooms of `stack/src`, files or folders, from the highest layer to the lowest. A room imports
/// from the layers below its own. Rooms of one layer do not import each other.
const STACK_LAYERS: &[&[&str]] = &[
    &["scheduler", "handles"],
    &["entry"],
    &["cycle"],
    &["machine"],
    &["scan"],
    &["runtime"],
    &["goroutine"],
    &["memory"],
    &["picture"],
    &["protocol", "word"],
    &["alarm"],
    &["ending", "reservation"],
    &["os"],
];

/// Where architectures and systems are named, as the beginnings of paths: folders with their doors.
const TARGETS: &[&str] = &[
    "asm/src/arch",
    "asm/src/x86_64",
    "asm/src/aarch64",
    "asm/src/i686",
    "asm/src/armv7",
    "asm/src/personality",
    "unwind/src/arch",
    "unwind/src/os",
    "stack/src/os",
];

/// Where else: the file, a part of the line, and why.
const NAMES_A_TARGET: &[(&str, &str, &str)] = &[
    ("unwind/src/signing.rs", "Vendor::AArch64", "reads the CFI of such images on any target"),
    ("stack/src/lib.rs", "#[cfg(not(all(target_os", REFUSAL),
    ("stack/src/lib.rs", "compile_error!(", REFUSAL),
    ("gc/src/lib.rs", "#[cfg(not(all(target_os", REFUSAL),
    ("gc/src/lib.rs", "compile_error!(", REFUSAL),
];

const REFUSAL: &str = "refuses other targets";

/// The longest line of code and comments.
const COLUMNS: usize = 100;

/// The longest file of a crate that is published, models and tests excepted.
const LINES: usize = 500;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The modules of a crate, with files relative to the workspace.
fn modules(name: &str) -> Vec<Module> {
    let workspace = workspace();
    let mut modules = crate_tree(&(), &workspace.join(name).join("src/lib.rs"));
    for module in &mut modules {
        module.file = module.file.strip_prefix(&workspace).expect("within").to_owned();
    }
    modules
}

/// Fails with all findings, if there are any.
#[track_caller]
fn none(what: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{what}:\n{}", findings.join("\n"));
}

fn shown(import: &Import) -> String {
    let (from, to) = (import.from.display(), import.to.display());
    format!("  {from}:{} imports {to} as {}", import.line, import.path)
}

/// No files of a crate import each other, nor in a circle of several.
#[track_caller]
fn no_circles(name: &str) {
    let found = circles(&imports(&modules(name)));
    let shown =
        |circle: &Vec<Import>| circle.iter().map(shown).collect::<Vec<_>>().join("\n") + "\n";
    none("circles of imports", &found.iter().map(shown).collect::<Vec<_>>());
}

/// The room of a file of `stack/src` and its layer; no room for `lib.rs`.
fn room(file: &Path) -> Option<(String, Option<usize>)> {
    let inside = file.strip_prefix("stack/src").expect("a file of stack");
    let name = inside.components().next().expect("a file").as_os_str();
    let name = Path::new(name).file_stem().and_then(|name| name.to_str()).expect("a name");
    let layer = STACK_LAYERS.iter().position(|layer| layer.contains(&name));
    (name != "lib").then(|| (name.to_owned(), layer))
}

/// The rooms of `stack` import downwards only.
#[track_caller]
fn downwards(name: &str) {
    let modules = modules(name);
    let mut findings: Vec<String> = modules
        .iter()
        .filter_map(|module| match room(&module.file)? {
            (name, None) => Some(format!("  {} ({name}): in no layer", module.file.display())),
            _ => None,
        })
        .collect();
    // A file may hold several modules.
    findings.dedup();
    for import in imports(&modules) {
        let Some((from, from_layer)) = room(&import.from) else { continue };
        let Some((to, to_layer)) = room(&import.to) else {
            findings.push(shown(&import));
            continue;
        };
        if from != to && from_layer.is_some() && to_layer.is_some() && from_layer >= to_layer {
            findings.push(shown(&import));
        }
    }
    none("imports that do not lead downwards", &findings);
}

/// Whether a word names an architecture, a system or a register: `RAX`, `run_rbp`, `x29`,
/// `target_arch`.
fn names_target(word: &str) -> bool {
    let word = word.to_lowercase();
    let register = |part: &str| {
        let number =
            |prefix: &str| part.strip_prefix(prefix).and_then(|n: &str| n.parse::<u32>().ok());
        let vector = ["xmm", "ymm", "zmm"].iter().any(|prefix| number(prefix).is_some());
        let general = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "rip", "eax", "ebx", "ecx",
            "edx", "esi", "edi", "esp", "ebp", "eip",
        ];
        // The lower ones of arm64 are names of other things as well.
        let numbered = matches!(number("r"), Some(8..16)) || matches!(number("x"), Some(16..31));
        general.contains(&part) || vector || numbered
    };
    ["target_arch", "target_os", "x86_64", "aarch64", "_mm_"].iter().any(|n| word.contains(n))
        || word.split(|c: char| !c.is_alphanumeric()).any(register)
}

/// Architectures, systems and registers are named in their places only. Tests may name them.
#[track_caller]
fn targets(name: &str) {
    let mut findings = Vec::new();
    for module in modules(name) {
        let file = module.file.to_str().expect("a name in UTF-8");
        if TARGETS.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        let source = fs::read_to_string(workspace().join(file)).expect("a file of the crate");
        let source: Vec<&str> = source.lines().collect();
        let mut last = 0;
        for token in &module.tokens {
            let line = source[token.line - 1];
            let allowed =
                NAMES_A_TARGET.iter().any(|(place, part, _)| *place == file && line.contains(part));
            let asked = token.kind != Kind::Mark && names_target(&token.text);
            if asked && !allowed && token.line != last {
                findings.push(format!("  {file}:{}: {}", token.line, line.trim()));
                last = token.line;
            }
        }
    }
    none("names of targets", &findings);
}

/// All files in a directory with one of these extensions, generated ones left out.
fn files(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![workspace().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
            let generated = ["target", "artifacts", "corpus", "coverage"].contains(&name);
            if path.is_dir() {
                if !name.starts_with('.') && !generated {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// No line is too long: sources and assembly, tests and generated text included.
#[track_caller]
fn short_lines(directory: &str) {
    let workspace = workspace();
    let mut findings = Vec::new();
    for file in files(directory, &["rs", "s"]) {
        let text = fs::read_to_string(&file).expect("a source in UTF-8");
        let file = file.strip_prefix(&workspace).expect("within").display();
        for (at, line) in text.lines().enumerate() {
            // A URL cannot be broken.
            let columns = line.chars().count();
            if columns > COLUMNS && !line.contains("://") {
                findings.push(format!("  {file}:{}: {columns} columns", at + 1));
            }
        }
    }
    none(&format!("lines of more than {COLUMNS} columns"), &findings);
}

/// No file of a crate is too long, but for those that only tests and models compile.
#[track_caller]
fn short_files(name: &str) {
    let workspace = workspace();
    let assembly = files(name, &["s"]);
    let assembly = assembly.iter().filter_map(|file| file.strip_prefix(&workspace).ok());
    let mut all: Vec<PathBuf> = assembly.map(Path::to_owned).collect();
    all.extend(modules(name).into_iter().map(|module| module.file));
    all.sort();
    all.dedup();
    let mut findings = Vec::new();
    for file in all {
        let text = fs::read_to_string(workspace.join(&file)).expect("a source in UTF-8");
        let lines = text.lines().count();
        if lines > LINES {
            findings.push(format!("  {}: {lines} lines", file.display()));
        }
    }
    none(&format!("files of more than {LINES} lines"), &findings);
}

/// Sources in folders of tests that a test compiles or looks at itself, not as its modules.
const INPUTS_OF_TESTS: &[&str] = &["gc/tests/misuse/refused"];

/// Each source that lies below a folder of tests is a target of its own, by its place, or a source
/// beside it or above names it: what is not compiled tests nothing.
#[track_caller]
fn compiled(directory: &str) {
    let workspace = workspace();
    let mut sources: Vec<(PathBuf, String)> = Vec::new();
    for file in files(directory, &["rs"]) {
        let text = fs::read_to_string(&file).expect("a source in UTF-8");
        sources.push((file.strip_prefix(&workspace).expect("within").to_owned(), text));
    }
    let mut findings = Vec::new();
    for (file, _) in &sources {
        let folder = file.parent().expect("a folder");
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
        // `tests` of the workspace holds packages.
        let tests = file.ancestors().skip(2).find(|above| above.ends_with("tests"));
        let Some(tests) = tests.filter(|tests| *tests != Path::new("tests")) else { continue };
        let above = tests.parent().expect("a package or a room");
        let is_target = folder.parent() == Some(tests) && name == "main";
        let is_input = INPUTS_OF_TESTS.iter().any(|input| folder == Path::new(input));
        let module = if name == "mod" { folder.file_name() } else { file.file_stem() };
        let module = module.and_then(|name| name.to_str()).expect("a name in UTF-8");
        let declared = [format!("mod {module};"), format!("/{name}.rs\"]")];
        let names = |(other, text): &(PathBuf, String)| {
            other != file && other.starts_with(above) && declared.iter().any(|d| text.contains(d))
        };
        if !is_target && !is_input && !sources.iter().any(names) {
            findings.push(format!("  {}", file.display()));
        }
    }
    none("sources that nothing compiles", &findings);
}

/// A crate's README names every public type.
#[track_caller]
fn readmes(name: &str) {
    let workspace = workspace();
    let file = name.rsplit('/').next().expect("a directory");
    let list = fs::read_to_string(workspace.join(format!("tests/api/{file}.txt")));
    let list = list.expect("the list of the public API: tests/api/update makes it");
    let readme = fs::read_to_string(workspace.join(name).join("README.md"));
    let readme = readme.expect("each crate has a README");
    let named = |wanted: &str| {
        readme.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == wanted)
    };
    let missing: Vec<String> = list
        .lines()
        .filter_map(type_of)
        .filter(|path| !named(path.rsplit("::").next().expect("a name")))
        .map(|path| format!("  {path}"))
        .collect();
    none(&format!("public types that {name}/README.md does not name"), &missing);
}

/// The path of the type or trait that a line of an API list is about.
fn type_of(line: &str) -> Option<&str> {
    let item = line.split_once("pub ")?.1;
    let kinds = ["struct ", "enum ", "union ", "trait ", "unsafe trait ", "type "];
    let path = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let path = path[..end.unwrap_or(path.len())].trim_end_matches(':');
    // An associated type has the name of its trait before its own.
    let capitals = path.split("::").filter(|name| name.starts_with(char::is_uppercase)).count();
    (capitals == 1).then_some(path)
}

/// The guide has no code of its own, and what its pages include and link to exists.
#[test]
fn the_guide_includes_what_is_compiled() {
    let workspace = workspace();
    let guide = workspace.join("guide");
    let mut findings = Vec::new();
    for file in files("guide/src", &["md"]) {
        let text = fs::read_to_string(&file).expect("a page in UTF-8");
        let page = Page { guide: &guide, file: &file, text: &text };
        let shown = file.strip_prefix(&workspace).expect("within").display();
        let faults = page.faults(&());
        findings.extend(faults.iter().map(|(line, fault)| format!("  {shown}:{line}: {fault}")));
    }
    none("faults of the guide", &findings);
}

/// The guide's summary names every page.
#[test]
fn the_guide_s_summary_is_complete() {
    let pages = workspace().join("guide/src");
    let summary = fs::read_to_string(pages.join("SUMMARY.md")).expect("the guide has a summary");
    let missing: Vec<String> = files("guide/src", &["md"])
        .iter()
        .map(|file| file.strip_prefix(&pages).expect("within").display().to_string())
        .filter(|page| page != "SUMMARY.md" && !summary.contains(&format!("]({page})")))
        .map(|page| format!("  {page}"))
        .collect();
    none("pages that the summary does not name", &missing);
}
