//! `--picture`: the stack of the goroutine that has called runtime.GC last, as SVG.
#[macro_use]
mod runner;

use runner::{Program, Size, minigo};
use std::path::{Path, PathBuf};

/// Runs a program, and yields the texts of its picture.
fn texts(name: &str, options: &[&str]) -> Vec<String> {
    let file = file(name);
    let mut all = vec!["--picture", file.to_str().expect("a path in UTF-8")];
    all.extend(options);
    Program::new(name).check(&all, Size::Full);
    let svg = std::fs::read_to_string(&file).expect("the picture");
    std::fs::remove_file(&file).expect("the picture");
    let document = roxmltree::Document::parse(&svg).unwrap_or_else(|e| panic!("{e}:\n{svg}"));
    let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts.filter_map(|node| node.text()).map(|text| text.trim().to_owned()).collect()
}

fn file(name: &str) -> PathBuf {
    let own = format!("picture-{name}-{}.svg", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(own)
}

#[test]
fn shows_the_stack_that_a_collection_has_left() {
    let texts = texts("backtrace", &["--stress", "barrier-every-frame"]);
    let has = |wanted: &str| texts.iter().any(|text| text.contains(wanted));
    // The recursion's frames, its own and the drawn ones, and what calls them.
    for wanted in ["parked: ", "of main.descend", "main.main.func1", "rescan barrier", "1 root"] {
        assert!(has(wanted), "{wanted:?} is missing in {texts:#?}");
    }
}

#[test]
fn shows_the_deepest_stack_of_a_program_that_asks_for_no_collection() {
    let texts = texts("goroutines", &[]);
    assert!(texts.iter().any(|text| text.starts_with("goroutine ")), "{texts:#?}");
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error() {
    let outcome =
        minigo(&["--picture", "/nowhere/picture.svg"], &Program::new("nqueens").file(Size::Full));
    outcome.expect_status(1).expect_stderr("minigo: /nowhere/picture.svg: ");
}
