//! The README's program is the example, and as short as it says.

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
    for import in EXAMPLE.lines().filter_map(|line| line.strip_prefix("use ")) {
        let from = import.split("::").next();
        assert!(matches!(from, Some("stackmark" | "stackmark_cranelift" | "std")), "{import}");
    }
}
