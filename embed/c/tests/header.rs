//! The header, against the compilers and the library's symbols.

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use support::{C, CXX, has, here, prefix, ran};

fn without_comments(source: &str) -> String {
    let mut text = String::new();
    let mut rest = source;
    while let Some(start) = rest.find("/*") {
        text.push_str(&rest[..start]);
        rest = rest[start..].split_once("*/").expect("the end of a comment").1;
    }
    text.push_str(rest);
    text
}

/// Names that the header declares as functions. A name of a type that is a function is followed by
/// its parameters, too, and comes behind `typedef`.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(here().join("include/stackmark.h")).expect("the header");
    let text = without_comments(&header);
    let mut names = BTreeSet::new();
    for statement in text.split(';').filter(|statement| !statement.contains("typedef")) {
        let Some((before, _)) = statement.split_once('(') else { continue };
        let name = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next();
        let name = name.expect("a part");
        if name.starts_with("stackmark_") {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let library = prefix().join("lib/libstackmark.so");
    let symbols = ran(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let symbols = symbols.lines().filter_map(|line| line.split_whitespace().nth(2));
    let exported: BTreeSet<String> = symbols.map(str::to_owned).collect();
    let declared = declared();
    assert!(declared.len() > 80, "the header is read: {declared:?}");
    let only_exported: Vec<_> = exported.difference(&declared).collect();
    let only_declared: Vec<_> = declared.difference(&exported).collect();
    assert_eq!((only_exported, only_declared), (vec![], vec![]), "only exported, only declared");
}

#[test]
fn the_header_compiles_alone() {
    let header = here().join("include/stackmark.h");
    for (compiler, switches, language) in [("gcc", C, "c"), ("g++", CXX, "c++")] {
        if !has(compiler) {
            continue;
        }
        let mut command = Command::new(compiler);
        command.args(switches).args(["-fsyntax-only", "-x", language]).arg(&header);
        ran(&mut command);
    }
}

#[test]
fn the_shared_library_has_its_name_and_the_static_one_links_by_pkg_config() {
    let library = prefix().join("lib/libstackmark.so");
    let dynamic = ran(Command::new("readelf").arg("-d").arg(library));
    assert!(dynamic.contains("[libstackmark.so.0]"), "{dynamic}");
    if has("pkg-config") {
        assert_eq!(support::pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    }
}

/// What the programs name of the header's functions, outside of comments.
fn mentioned() -> BTreeSet<String> {
    let programs = std::fs::read_dir(here().join("tests/programs")).expect("the programs");
    let texts = programs.map(|file| std::fs::read_to_string(file.expect("a file").path()));
    let mut names = BTreeSet::new();
    for text in texts {
        let text = without_comments(&text.expect("UTF-8"));
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = code.filter(|line| !line.starts_with("# "));
        let words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        names.extend(words.filter(|word| word.starts_with("stackmark_")).map(str::to_owned));
    }
    names
}

#[test]
fn every_function_is_called_by_a_program_in_c() {
    let (declared, mentioned) = (declared(), mentioned());
    let missing: Vec<_> = declared.difference(&mentioned).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_shared_library_stays_loaded() {
    let library = prefix().join("lib/libstackmark.so");
    let dynamic = ran(Command::new("readelf").arg("-d").arg(library));
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn an_installation_for_a_package_names_its_files_without_the_package() {
    let package = support::scratch("package");
    for (environment, argument) in [(None, Some("/opt/some")), (Some("/opt/some"), None)] {
        let mut install = Command::new(here().join("install"));
        install.env("DESTDIR", &package).env_remove("PREFIX");
        install.envs(environment.map(|prefix| ("PREFIX", prefix)));
        ran(install.arg("--from").arg(support::built()).args(argument));
        let file = package.join("opt/some/lib/pkgconfig/stackmark.pc");
        let text = std::fs::read_to_string(&file).expect("the file for pkg-config");
        assert!(text.starts_with("prefix=/opt/some\n"), "{text}");
        assert!(package.join("opt/some/include/stackmark.h").exists());
        let link = std::fs::read_link(package.join("opt/some/lib/libstackmark.so"));
        assert_eq!(link.expect("a link").to_str(), Some("libstackmark.so.0"));
        std::fs::remove_dir_all(&package).expect("it was made above");
    }
}

#[test]
fn an_installation_says_how_it_is_called() {
    for arguments in [&["--from"][..], &["one", "two"], &["--help"]] {
        let output = Command::new(here().join("install")).args(arguments).output().expect("sh");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.starts_with("usage: ") && error.lines().count() == 1, "{error}");
    }
}
