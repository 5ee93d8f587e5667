//! The README's program is the example, and as short as it says. The other examples run.

#[path = "../examples/recursion.rs"]
mod recursion;
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
}

#[test]
fn the_example_with_c_has_about_200_lines_and_imports_little() {
    let example = include_str!("../examples/sort.rs");
    assert!(example.lines().count() <= 210, "{} lines", example.lines().count());
    imports_little(example);
}

fn imports_little(example: &str) {
    for import in example.lines().filter_map(|line| line.strip_prefix("use ")) {
        let from = import.split("::").next();
        assert!(matches!(from, Some("stackmark" | "stackmark_cranelift" | "std")), "{import}");
    }
}

#[test]
fn c_sorts_by_a_comparison_in_managed_code() {
    sort::main().expect("it sorts");
}

#[test]
fn a_hosts_recursion_alternates_with_managed_code_ten_thousand_times() {
    recursion::main().expect("it comes back");
}
