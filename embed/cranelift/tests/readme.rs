//! The README's program is the example, and as short as it says. The other example runs.

#[path = "../examples/sort.rs"]
mod sort;

const README: &str = include_str!("../README.md");
const EXAMPLE: &str = include_str!("../examples/cons.rs");

#[test]
fn the_readme_shows_the_example() {
    let shown = README.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(shown, Some(EXAMPLE));
}

#[test]
fn the_example_has_sixty_lines_at_most_and_imports_little() {
    assert!(EXAMPLE.lines().count() <= 60, "{} lines", EXAMPLE.lines().count());
    imports_little(EXAMPLE);
    imports_little(include_str!("../examples/sort.rs"));
}

fn imports_little(example: &str) {
    for import in example.lines().filter_map(|line| line.strip_prefix("use ")) {
        let from = import.split("::").next();
        assert!(matches!(from, Some("stackmark" | "stackmark_cranelift" | "std")), "{import}");
    }
}

#[test]
fn c_sorts_by_a_comparison_in_managed_code() {
    sort::run().expect("it sorts");
}
