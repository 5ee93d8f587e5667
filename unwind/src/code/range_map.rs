//! A map from ranges of addresses, which overlap nowhere, to values. A copy costs nothing: versions
//! share what did not change. A change copies the nodes on one path, O(log n) of them.
//!
//! It is an AVL tree (Adelson-Velsky and Landis), since its look-ups must not allocate: signal
//! handlers make them. The ordered maps of `imbl` and `rpds` find a neighbour by iterators that do.

use std::ops::Range;
use std::sync::Arc;

type Link<T> = Option<Arc<Node<T>>>;

/// The map.
#[derive(Debug)]
pub(crate) struct RangeMap<T> {
    root: Link<T>,
}

#[derive(Debug)]
struct Node<T> {
    start: usize,
    end: usize,
    value: Arc<T>,
    left: Link<T>,
    right: Link<T>,
    /// Of the tree below and with this node. The heights of two siblings differ by one at most.
    height: u8,
}

impl<T> Default for RangeMap<T> {
    fn default() -> RangeMap<T> {
        RangeMap { root: None }
    }
}

impl<T> Clone for RangeMap<T> {
    fn clone(&self) -> RangeMap<T> {
        RangeMap { root: self.root.clone() }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Node<T> {
        Node {
            value: self.value.clone(),
            left: self.left.clone(),
            right: self.right.clone(),
            ..*self
        }
    }
}

impl<T> RangeMap<T> {
    /// The value of the range that holds `address`. It allocates nothing and takes no lock.
    #[inline]
    pub(crate) fn get(&self, address: usize) -> Option<&T> {
        let mut link = &self.root;
        while let Some(node) = link {
            if address < node.start {
                link = &node.left;
            } else if address < node.end {
                return Some(&node.value);
            } else {
                link = &node.right;
            }
        }
        None
    }

    /// The value of one of the ranges that overlap `range`.
    pub(crate) fn overlapping(&self, range: &Range<usize>) -> Option<&T> {
        let mut link = &self.root;
        while let Some(node) = link {
            if range.end <= node.start {
                link = &node.left;
            } else if range.start < node.end {
                return Some(&node.value);
            } else {
                link = &node.right;
            }
        }
        None
    }

    /// Adds a range, which is not empty and overlaps none.
    pub(crate) fn insert(&mut self, range: Range<usize>, value: T) {
        let Range { start, end } = range;
        let value = Arc::new(value);
        let node = Node { start, end, value, left: None, right: None, height: 1 };
        insert(&mut self.root, node);
    }

    /// Removes the range that holds `address`, and yields its value.
    pub(crate) fn remove(&mut self, address: usize) -> Option<Arc<T>> {
        // Nothing is copied in vain.
        self.get(address)?;
        remove(&mut self.root, address)
    }

    /// All values, in the order of their ranges. It allocates.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        let mut above: Vec<&Node<T>> = Vec::new();
        let mut link = &self.root;
        std::iter::from_fn(move || {
            while let Some(node) = link {
                above.push(node);
                link = &node.left;
            }
            let node = above.pop()?;
            link = &node.right;
            Some(&*node.value)
        })
    }
}

fn height<T>(link: &Link<T>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn insert<T>(link: &mut Link<T>, node: Node<T>) {
    match link {
        None => *link = Some(Arc::new(node)),
        Some(here) => {
            let here = Arc::make_mut(here);
            insert(if node.start < here.start { &mut here.left } else { &mut here.right }, node);
            balance(here);
        }
    }
}

fn remove<T>(link: &mut Link<T>, address: usize) -> Option<Arc<T>> {
    let here = Arc::make_mut(link.as_mut()?);
    if address < here.start {
        let removed = remove(&mut here.left, address);
        balance(here);
        return removed;
    }
    if address >= here.end {
        let removed = remove(&mut here.right, address);
        balance(here);
        return removed;
    }
    let (left, mut right) = (here.left.take(), here.right.take());
    let removed = here.value.clone();
    *link = match take_first(&mut right) {
        None => left,
        Some(mut next) => {
            let node = Arc::make_mut(&mut next);
            (node.left, node.right) = (left, right);
            balance(node);
            Some(next)
        }
    };
    Some(removed)
}

/// Takes the first node out of a tree.
fn take_first<T>(link: &mut Link<T>) -> Link<T> {
    let here = Arc::make_mut(link.as_mut()?);
    if here.left.is_some() {
        let first = take_first(&mut here.left);
        balance(here);
        return first;
    }
    let right = here.right.take();
    std::mem::replace(link, right)
}

/// Makes the heights right again, where those of the two trees below differ by two at most.
fn balance<T>(node: &mut Node<T>) {
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(below) = &mut node.left {
            let below = Arc::make_mut(below);
            if height(&below.left) < height(&below.right) {
                rotate_left(below);
            }
        }
        rotate_right(node);
    } else if right > left + 1 {
        if let Some(below) = &mut node.right {
            let below = Arc::make_mut(below);
            if height(&below.right) < height(&below.left) {
                rotate_right(below);
            }
        }
        rotate_left(node);
    } else {
        node.height = 1 + left.max(right);
    }
}

/// Makes the left node the upper one.
fn rotate_right<T>(node: &mut Node<T>) {
    let Some(mut upper) = node.left.take() else { return };
    let pivot = Arc::make_mut(&mut upper);
    node.left = pivot.right.take();
    // Now `node` is the upper one, and the other is in its place.
    std::mem::swap(node, pivot);
    set_height(pivot);
    node.right = Some(upper);
    set_height(node);
}

/// Makes the right node the upper one.
fn rotate_left<T>(node: &mut Node<T>) {
    let Some(mut upper) = node.right.take() else { return };
    let pivot = Arc::make_mut(&mut upper);
    node.right = pivot.left.take();
    std::mem::swap(node, pivot);
    set_height(pivot);
    node.left = Some(upper);
    set_height(node);
}

fn set_height<T>(node: &mut Node<T>) {
    node.height = 1 + height(&node.left).max(height(&node.right));
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The number of nodes, if the tree is one.
    fn check<T>(link: &Link<T>, within: Range<usize>) -> usize {
        let Some(node) = link else { return 0 };
        let (left, right) = (height(&node.left), height(&node.right));
        assert!(left.abs_diff(right) <= 1 && node.height == 1 + left.max(right));
        assert!(within.start <= node.start && node.start < node.end && node.end <= within.end);
        1 + check(&node.left, within.start..node.start) + check(&node.right, node.end..within.end)
    }

    proptest! {
        #[test]
        fn a_map_is_what_a_list_of_ranges_is_and_older_versions_stay(
            steps in prop::collection::vec((any::<bool>(), 0..300_usize, 1..8_usize), 1..200),
        ) {
            let mut map = RangeMap::default();
            let mut expected: BTreeMap<usize, usize> = BTreeMap::new();
            let mut versions = Vec::new();
            for (adds, start, len) in steps {
                let range = start * 4..start * 4 + len * 3;
                let overlaps = expected.iter().any(|(s, e)| *s < range.end && range.start < *e);
                prop_assert_eq!(map.overlapping(&range).is_some(), overlaps);
                if adds && !overlaps {
                    expected.insert(range.start, range.end);
                    map.insert(range.clone(), range);
                } else if !adds {
                    let holder = expected.iter().find(|(s, e)| (**s..**e).contains(&(start * 4)));
                    let holder = holder.map(|(start, end)| *start..*end);
                    let removed = map.remove(start * 4);
                    prop_assert_eq!(removed.as_deref(), holder.as_ref());
                    let is_gone = |at: &usize| holder.as_ref().is_some_and(|it| *at == it.start);
                    expected.retain(|start, _| !is_gone(start));
                }
                versions.push((map.clone(), expected.clone()));
            }
            for (map, expected) in versions {
                prop_assert_eq!(check(&map.root, 0..usize::MAX), expected.len());
                let ranges: Vec<_> = map.values().map(|range| (range.start, range.end)).collect();
                prop_assert_eq!(ranges, expected.clone().into_iter().collect::<Vec<_>>());
                for address in 0..1300 {
                    let holder = expected.range(..=address).next_back();
                    let holder = holder.filter(|holder| address < *holder.1);
                    let holder = holder.map(|holder| *holder.0);
                    prop_assert_eq!(map.get(address).map(|range| range.start), holder);
                }
            }
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::rcu::{Rcu, Retired};

    /// Says when it is freed.
    struct Value(usize, Arc<AtomicBool>);

    impl Drop for Value {
        fn drop(&mut self) {
            assert!(!self.1.swap(true, Ordering::Relaxed), "freed once");
        }
    }

    /// A reader in the midst of code that comes and goes. The paths to the ranges that stay are
    /// copied meanwhile, and what was copied is freed.
    #[test]
    fn a_reader_finds_what_stays_while_the_tree_around_it_changes() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let value = |start: usize| Value(start, Arc::new(AtomicBool::new(false)));
            let mut map = RangeMap::default();
            for start in [40, 20, 60] {
                map.insert(start..start + 10, value(start));
            }
            let shared = Arc::new(Rcu::new(map));
            let reader = {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    let map = shared.read();
                    let stays = map.get(65).expect("it stays");
                    loom::thread::yield_now();
                    assert_eq!(stays.0, 60);
                    assert!(!stays.1.load(Ordering::Relaxed), "freed while it was read");
                    if let Some(goes) = map.get(25) {
                        loom::thread::yield_now();
                        assert!(!goes.1.load(Ordering::Relaxed), "freed while it was read");
                    }
                })
            };
            let mut retired = Retired::default();
            // The second change turns the tree around.
            let mut next = shared.read().clone();
            assert!(next.remove(20).is_some());
            shared.replace(&mut retired, next);
            let mut next = shared.read().clone();
            next.insert(80..90, value(80));
            shared.replace(&mut retired, next);
            reader.join().unwrap();
            // SAFETY: the reader has gone.
            unsafe { retired.free() };
        });
    }
}
