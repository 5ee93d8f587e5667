//! The analysis itself, on small made-up crates.

use std::collections::BTreeMap;
use std::path::Path;
use structure::{Page, circles, crate_tree, imports};

/// `FROM:LINE > TO` for each import of a crate whose root is `lib.rs`.
fn imports_of(files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let all = imports(&crate_tree(&files, Path::new("lib.rs")));
    all.iter().map(|i| format!("{}:{} > {}", i.from.display(), i.line, i.to.display())).collect()
}

/// The files on each circle of a crate, in the order of the imports.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let found = circles(&imports(&crate_tree(&files, Path::new("lib.rs"))));
    let names = |circle: &Vec<structure::Import>| {
        circle.iter().map(|import| import.from.display().to_string()).collect()
    };
    found.iter().map(names).collect()
}

#[test]
fn a_clean_tree_has_no_circle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;\npub use a::A;\npub use c::deep::D;"),
        ("a.rs", "use crate::b::{self, B};\npub struct A(B, crate::c::deep::D);"),
        ("b.rs", "use std::fmt;\npub struct B;"),
        ("c/mod.rs", "pub mod deep;\nmod user;"),
        ("c/deep.rs", "pub struct D;"),
        ("c/user.rs", "use super::deep::D;"),
    ];
    assert_eq!(circles_of(&files), Vec::<Vec<String>>::new());
    assert_eq!(
        imports_of(&files),
        [
            "a.rs:1 > b.rs",
            "a.rs:2 > c/deep.rs",
            "c/user.rs:1 > c/deep.rs",
            "lib.rs:2 > a.rs",
            "lib.rs:3 > c/deep.rs",
        ]
    );
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B;\nfn f(_: &crate::a::A) {}"),
    ];
    assert_eq!(circles_of(&files), [["a.rs", "b.rs"]]);
}

#[test]
fn three_files_in_a_row_are_a_circle() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::{c::C as Other};"),
        ("c.rs", "use super::a::*;"),
    ];
    assert_eq!(circles_of(&files), [["a.rs", "b.rs", "c.rs"]]);
}

#[test]
fn a_re_export_is_an_import() {
    // `x` needs no more than `Y`, and takes it from the door, which imports `x`.
    let files = [
        ("lib.rs", "mod room;"),
        ("room/mod.rs", "mod x; mod y;\npub use x::X;\npub use y::Y;"),
        ("room/x.rs", "use super::Y; pub struct X(Y);"),
        ("room/y.rs", "pub struct Y;"),
    ];
    assert_eq!(circles_of(&files), [["room/mod.rs", "room/x.rs"]]);
}

#[test]
fn a_name_that_the_root_re_exports_is_imported_from_the_root() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
        ("a.rs", "pub struct A;"),
        ("b.rs", "use crate::A; pub struct B(A);"),
    ];
    assert_eq!(circles_of(&files), [["b.rs", "lib.rs"]]);
}

#[test]
fn each_circle_is_found() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::X; use crate::c::X;"),
        ("b.rs", "use crate::a::X;"),
        ("c.rs", "use crate::d::X;"),
        ("d.rs", "use crate::c::X;"),
    ];
    assert_eq!(circles_of(&files), [["a.rs", "b.rs"], ["c.rs", "d.rs"]]);
}

#[test]
fn tests_models_comments_strings_and_macros_import_nothing() {
    let a = "
        //! use crate::b::B;
        /* use crate::b::B; /* nested */ crate::b::B */
        fn captured() -> impl Sized + use<> {}
        const TEXT: (&str, &str, char) = (\"crate::b::B \\\" \", r#\"crate::b::B\"#, '\"');
        pub(in crate::room) struct Lifetime<'a>(&'a ());
        macro_rules! m { () => { crate::b::B } }
        #[cfg(test)] use crate::b::B;
        #[cfg(all(test, stackmark_loom))] #[allow(unused)] mod models { use super::super::b::B; }
        #[cfg(any(fuzzing, all(test, not(stackmark_loom))))] mod missing;
        struct S { #[cfg(test)] b: crate::b::B, c: u8 }
        #[cfg(test)] fn f<T, U>(b: crate::b::B) -> [u8; 2] { crate::b::B }
    ";
    let files = [("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", "use crate::a::A;")];
    assert_eq!(imports_of(&files), ["b.rs:1 > a.rs"]);
}

#[test]
fn what_some_builds_compile_is_looked_at() {
    let a = "
        #[cfg(not(test))] use crate::b::B;
        #[cfg(stackmark_loom)] mod inner { fn f() { super::super::c::f::<u8>(); } }
        #[cfg(any(test, feature = \"x\"))] fn f() { crate::d::f() }
    ";
    let others = [("b.rs", ""), ("c.rs", ""), ("d.rs", "")];
    let files = [&[("lib.rs", "mod a; mod b; mod c; mod d;"), ("a.rs", a)], &others[..]].concat();
    assert_eq!(imports_of(&files), ["a.rs:2 > b.rs", "a.rs:3 > c.rs", "a.rs:4 > d.rs"]);
}

#[test]
fn a_module_may_have_another_name() {
    let files = [
        ("lib.rs", "mod user; mod x86_64;\nuse x86_64 as arch;"),
        ("user.rs", "use crate::arch::PAGE;"),
        ("x86_64.rs", ""),
    ];
    assert_eq!(imports_of(&files), ["lib.rs:2 > x86_64.rs", "user.rs:1 > x86_64.rs"]);
}

#[test]
fn a_module_may_lie_elsewhere() {
    let files = [
        ("lib.rs", "mod door; #[path = \"x86_64/mod.rs\"] mod inner;"),
        ("door.rs", "#[path = \"other/deep.rs\"] #[allow(unused)] pub mod deep;\nuse deep::X;"),
        ("x86_64/mod.rs", "use crate::door::deep::X;"),
        ("other/deep.rs", ""),
    ];
    assert_eq!(
        imports_of(&files),
        ["door.rs:2 > other/deep.rs", "x86_64/mod.rs:1 > other/deep.rs"]
    );
}

/// The faults of a page of a guide, beside a few files.
fn faults_of(text: &str) -> Vec<String> {
    let files = BTreeMap::from([
        ("guide/src/other.md", "# Other"),
        ("guide/src/own.rs", "fn own() {}"),
        ("a/main.c", "/* ANCHOR: main */\nint main(void) {}\n/* ANCHOR_END: main */"),
        ("a/lib.rs", "// ANCHOR: f\nfn f() {}\n// ANCHOR_END: f\n// ANCHOR: g\n// ANCHOR_END: g"),
    ]);
    let (guide, file) = (Path::new("guide"), Path::new("guide/src/page.md"));
    let faults = Page { guide, file, text }.faults(&files);
    faults.into_iter().map(|(line, fault)| format!("{line}: {fault}")).collect()
}

#[test]
fn a_page_with_included_code_has_no_fault() {
    let page = "See [other](other.md#part), [here](#x), [there](https://example.org).\n\
        ```rust,ignore\n{{#include ../../a/lib.rs:f}}\n```\n\
        ```rust\n{{#include ../../a/lib.rs}}\n\n{{#include ../../a/lib.rs:f}}\n```\n\
        ```c\n{{#include ../../a/main.c:main}}\n```\n\
        ```sh\ncargo run\n```\n````text\n```\nit runs\n````\n";
    assert_eq!(faults_of(page), Vec::<String>::new());
}

#[test]
fn code_of_a_page_s_own_is_a_fault() {
    for (page, fault) in [
        ("```rust\nfn f() {}\n```", "2: code of its own in a block of \"rust\""),
        ("~~~\nfn f() {}\n~~~", "2: code of its own in a block of \"\""),
        ("- a\n  ```c,x\n  int f;\n  ```", "3: code of its own in a block of \"c\""),
        ("text:\n\n    fn f() {}", "3: an indented block"),
        ("```rust\n```", "1: an empty block"),
        ("```sh\nls", "1: a block without an end"),
    ] {
        assert_eq!(faults_of(page), [fault]);
    }
}

#[test]
fn an_include_of_what_is_not_there_is_a_fault() {
    for (include, fault) in [
        ("../../a/none.rs", "there is no file ../../a/none.rs"),
        ("../../a/lib.rs:h", "../../a/lib.rs has no anchor h"),
        ("../../a/lib.rs:g", "nothing is in the anchor g of ../../a/lib.rs"),
        ("../../a/lib.rs:1:2", "../../a/lib.rs has no anchor 1:2"),
        ("../../a/lib.rs:", "../../a/lib.rs: names no anchor"),
        ("../../a/main.c", "../../a/main.c in a block of \"rust\""),
        ("own.rs", "own.rs is a file of the guide"),
    ] {
        let page = format!("```rust\n{{{{#include {include}}}}}\n```");
        assert_eq!(faults_of(&page), [format!("2: {fault}")]);
    }
    assert_eq!(faults_of("{{#include ../../a/lib.rs}}"), ["1: an include outside of a block"]);
    let playground = faults_of("```rust\n{{#playground ../../a/lib.rs}}\n```");
    assert_eq!(playground, ["2: code of its own in a block of \"rust\""]);
}

#[test]
fn a_link_to_no_page_is_a_fault() {
    assert_eq!(faults_of("[a](none.md)"), ["1: a link to none.md, which is no page"]);
    let outside = "a [file](../../a/lib.rs) outside of the guide";
    assert_eq!(faults_of(outside), ["1: a link to ../../a/lib.rs, which is no page"]);
}
