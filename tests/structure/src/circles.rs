//! Circles of imports.

use crate::imports::Import;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// A shortest circle through each file that lies on one and on none of those found before, as the
/// imports that make it.
pub fn circles(imports: &[Import]) -> Vec<Vec<Import>> {
    let mut by_file: BTreeMap<&Path, Vec<&Import>> = BTreeMap::new();
    for import in imports {
        by_file.entry(&import.from).or_default().push(import);
    }
    let mut found: Vec<Vec<Import>> = by_file.keys().filter_map(|f| through(f, &by_file)).collect();
    found.sort_by_key(Vec::len);
    let mut covered = BTreeSet::new();
    found.retain(|circle| {
        let new = circle.iter().all(|import| !covered.contains(&import.from));
        if new {
            covered.extend(circle.iter().map(|import| import.from.clone()));
        }
        new
    });
    found
}

/// A shortest circle through a file.
fn through(start: &Path, by_file: &BTreeMap<&Path, Vec<&Import>>) -> Option<Vec<Import>> {
    let mut reached: BTreeMap<&Path, &Import> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        for &import in by_file.get(file).into_iter().flatten() {
            if !reached.contains_key(import.to.as_path()) {
                reached.insert(&import.to, import);
                next.push_back(&import.to);
            }
        }
        let Some(mut last) = reached.get(start).copied() else { continue };
        let mut circle = vec![last.clone()];
        while last.from != start {
            last = reached[last.from.as_path()];
            circle.insert(0, last.clone());
        }
        return Some(circle);
    }
    None
}
