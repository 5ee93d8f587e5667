//! The header, against the compilers and the library's symbols.

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use support::{C, CXX, has, here, prefix, ran};

/// Names that the header declares as functions. A name of a type that is a function is followed by
/// its parameters, too, and comes behind `typedef`.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(here().join("include/stackmark.h")).expect("the header");
    let mut text = String::new();
    let mut rest = &*header;
    while let Some(start) = rest.find("/*") {
        text.push_str(&rest[..start]);
        rest = rest[start..].split_once("*/").expect("the end of a comment").1;
    }
    text.push_str(rest);
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
