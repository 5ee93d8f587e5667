//! Verification: with the world stopped after marking, everything is walked again from the roots.
//! What is reachable must be marked.

use std::collections::HashMap;
use std::fmt;

use crate::heap::{BY_COLLECTOR, Heap, Object};

/// What holds a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    Global,
    Handle,
    /// The value that a weak reference keeps.
    WeakValue,
    /// A slot in a stack, or a word that a goroutine starts or goes on with.
    Goroutine,
}

/// A root as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) kind: RootKind,
    pub(crate) word: usize,
}

/// A reachable object that marking has missed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct UnmarkedObject {
    /// The object.
    pub(crate) object: Object,
    /// The root from which it was found.
    pub(crate) root: Root,
    /// Where on a stack the root is, if the stacks have been asked.
    pub(crate) place: Option<String>,
    /// The objects between the root and it, the one that the root refers to first.
    pub(crate) path: Vec<Object>,
    /// The reference to it as it was found, which may be an interior pointer.
    pub(crate) word: usize,
}

/// The most objects of a path that a report names, at either end of it.
const SHOWN: usize = 8;

impl fmt::Display for UnmarkedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnmarkedObject { object, root, place, path, word } = self;
        write!(f, "object {:#x} is reachable but unmarked: ", object.address())?;
        let from = match root.kind {
            RootKind::Global => "a global",
            RootKind::Handle => "a handle",
            RootKind::WeakValue => "the value of a weak reference",
            RootKind::Goroutine => "a goroutine",
        };
        write!(f, "{from} has the root {:#x}", root.word)?;
        if let Some(place) = place {
            write!(f, " in {place}")?;
        }
        let left_out = path.len().saturating_sub(2 * SHOWN);
        for (i, object) in path.iter().enumerate() {
            if i < SHOWN || i >= SHOWN + left_out {
                write!(f, " -> object {:#x}", object.address())?;
            } else if i == SHOWN {
                write!(f, " -> {left_out} more")?;
            }
        }
        match path[..] {
            [] => Ok(()),
            _ => write!(f, " -> {word:#x} in the last one refers to it"),
        }
    }
}

/// How an object was found first.
#[derive(Clone, Copy)]
enum Via {
    Root(Root),
    Object(Object),
}

/// A walk over everything that is reachable. It has a visited set of its own and sets no marks.
pub(crate) struct Verifier<'h, H> {
    heap: &'h H,
    visited: HashMap<Object, Via>,
    rest: Vec<Object>,
    found: Option<UnmarkedObject>,
}

impl<'h, H: Heap> Verifier<'h, H> {
    pub(crate) fn new(heap: &'h H) -> Self {
        Verifier { heap, visited: HashMap::new(), rest: Vec::new(), found: None }
    }

    /// Adds roots.
    pub(crate) fn roots(&mut self, kind: RootKind, words: &[usize]) {
        words.iter().for_each(|&word| self.visit(Via::Root(Root { kind, word }), word));
    }

    fn visit(&mut self, via: Via, word: usize) {
        let Some(object) = self.heap.resolve(word) else { return };
        if self.visited.contains_key(&object) {
            return;
        }
        self.visited.insert(object, via);
        if !self.heap.is_marked(object) && self.found.is_none() {
            self.found = Some(self.report(object, via, word));
        }
        self.rest.push(object);
    }

    fn report(&self, object: Object, via: Via, word: usize) -> UnmarkedObject {
        let (mut path, mut via) = (Vec::new(), via);
        let root = loop {
            match via {
                Via::Root(root) => break root,
                Via::Object(parent) => {
                    path.push(parent);
                    via = self.visited[&parent];
                }
            }
        };
        path.reverse();
        UnmarkedObject { object, root, place: None, path, word }
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
                self.visit(Via::Object(object), word);
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

    /// Bytes of a word.
    const WORD: usize = size_of::<usize>();

    #[test]
    fn an_unmarked_object_is_found_with_what_refers_to_it() {
        let heap = MarkSweep::new(&Options::default()).expect("a heap");
        let allocator = heap.allocator().expect("an allocator");
        let references = heap.register(Descriptor::references()).expect("a descriptor");
        let objects: Vec<usize> = (0..3)
            .map(|_| allocator.hand_out(references, 2 * WORD).expect("room").as_ptr() as usize)
            .collect();
        for pair in objects.windows(2) {
            // SAFETY: within an object that was just allocated.
            unsafe { ((pair[0] + WORD) as *mut usize).write(pair[1] + 4) };
        }
        heap.begin_cycle(BY_COLLECTOR);
        let named: Vec<Object> =
            objects.iter().map(|word| heap.resolve(*word).expect("an object")).collect();
        let verify = || {
            let mut verifier = Verifier::new(&*heap);
            verifier.roots(RootKind::Global, &[0, 17]);
            verifier.roots(RootKind::Goroutine, &[objects[0]]);
            verifier.finish()
        };
        let root = Root { kind: RootKind::Goroutine, word: objects[0] };
        let unmarked = |object, word, path: &[Object]| {
            Err(UnmarkedObject { object, root, place: None, path: path.to_vec(), word })
        };
        assert_eq!(verify(), unmarked(named[0], objects[0], &[]));
        heap.mark(named[0], BY_COLLECTOR);
        heap.mark(named[1], BY_COLLECTOR);
        assert_eq!(verify(), unmarked(named[2], objects[2] + 4, &named[..2]));
        let [first, second, third] = [0, 1, 2].map(|i| objects[i]);
        let mut report = verify().expect_err("an unmarked object");
        report.place = Some("main.f".to_owned());
        assert_eq!(
            report.to_string(),
            format!(
                "object {third:#x} is reachable but unmarked: a goroutine has the root {first:#x} \
                 in main.f -> object {first:#x} -> object {second:#x} -> {:#x} in the last one \
                 refers to it",
                third + 4
            )
        );
        heap.mark(named[2], BY_COLLECTOR);
        assert_eq!(verify(), Ok(3));
        heap.end_cycle(Marked::default(), BY_COLLECTOR);
    }
}
