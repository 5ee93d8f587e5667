//! Verification: with the world stopped after marking, everything is walked again from the roots.
//! What is reachable must be marked.

use std::collections::HashMap;

use crate::heap::{BY_COLLECTOR, Heap, Object};

/// A reachable object that marking has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "object {:#x} is reachable but unmarked: {}",
    object.address(),
    describe(*parent, *word, *distance)
)]
pub(crate) struct UnmarkedObject {
    /// The object.
    pub(crate) object: Object,
    /// The object that refers to it, or `None` if a root does.
    pub(crate) parent: Option<Object>,
    /// The reference as it was found, which may be an interior pointer.
    pub(crate) word: usize,
    /// How many references lead from the root to it.
    pub(crate) distance: usize,
}

fn describe(parent: Option<Object>, word: usize, distance: usize) -> String {
    match parent {
        Some(parent) => {
            let parent = parent.address();
            format!(
                "{word:#x}, in object {parent:#x}, refers to it, {distance} references from a root"
            )
        }
        None => format!("the root {word:#x} refers to it"),
    }
}

/// A walk over everything that is reachable. It has a visited set of its own and sets no marks.
pub(crate) struct Verifier<'h, H> {
    heap: &'h H,
    /// Visited objects, each with the object through which it was found first.
    visited: HashMap<Object, Option<Object>>,
    rest: Vec<Object>,
    found: Option<UnmarkedObject>,
}

impl<'h, H: Heap> Verifier<'h, H> {
    pub(crate) fn new(heap: &'h H) -> Self {
        Verifier { heap, visited: HashMap::new(), rest: Vec::new(), found: None }
    }

    /// Adds roots.
    pub(crate) fn roots(&mut self, words: &[usize]) {
        words.iter().for_each(|word| self.visit(None, *word));
    }

    fn visit(&mut self, parent: Option<Object>, word: usize) {
        let Some(object) = self.heap.resolve(word) else { return };
        if self.visited.contains_key(&object) {
            return;
        }
        self.visited.insert(object, parent);
        if !self.heap.is_marked(object) && self.found.is_none() {
            let path =
                std::iter::successors(parent, |object| self.visited.get(object).copied().flatten());
            self.found = Some(UnmarkedObject { object, parent, word, distance: path.count() });
        }
        self.rest.push(object);
    }

    /// Walks on from the roots. Returns how many objects are reachable.
    ///
    /// # Errors
    /// The first unmarked object that was found.
    pub(crate) fn finish(mut self) -> Result<usize, UnmarkedObject> {
        let mut words = Vec::new();
        while let Some(object) = self.rest.pop() {
            self.heap.trace(object, 0..usize::MAX, &mut |word| words.push(word), BY_COLLECTOR);
            for word in words.drain(..) {
                self.visit(Some(object), word);
            }
        }
        self.found.map_or(Ok(self.visited.len()), Err)
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::heap::Marked;
    use crate::mark_sweep::{Descriptor, MarkSweep, Options};

    #[test]
    fn an_unmarked_object_is_found_with_what_refers_to_it() {
        let heap = MarkSweep::new(&Options::default()).expect("a heap");
        let allocator = heap.allocator().expect("an allocator");
        let references = heap.register(Descriptor::references()).expect("a descriptor");
        let objects: Vec<usize> = (0..3)
            .map(|_| allocator.hand_out(references, 16).expect("room").as_ptr() as usize)
            .collect();
        for pair in objects.windows(2) {
            // SAFETY: within an object that was just allocated.
            unsafe { ((pair[0] + 8) as *mut usize).write(pair[1] + 4) };
        }
        heap.begin_cycle(BY_COLLECTOR);
        let named: Vec<Object> =
            objects.iter().map(|word| heap.resolve(*word).expect("an object")).collect();
        let verify = || {
            let mut verifier = Verifier::new(&*heap);
            verifier.roots(&[0, 17, objects[0]]);
            verifier.finish()
        };
        let expected =
            UnmarkedObject { object: named[0], parent: None, word: objects[0], distance: 0 };
        assert_eq!(verify(), Err(expected));
        heap.mark(named[0], BY_COLLECTOR);
        heap.mark(named[1], BY_COLLECTOR);
        let expected = UnmarkedObject {
            object: named[2],
            parent: Some(named[1]),
            word: objects[2] + 4,
            distance: 2,
        };
        assert_eq!(verify(), Err(expected));
        heap.mark(named[2], BY_COLLECTOR);
        assert_eq!(verify(), Ok(3));
        heap.end_cycle(Marked::default(), BY_COLLECTOR);
    }
}
