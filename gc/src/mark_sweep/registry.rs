//! The registered descriptors, and for each of them and each size class the blocks that belong to it.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::class::CLASSES;
use super::descriptor::{Descriptor, DescriptorError, DescriptorId};

const CHUNK: usize = 256;
const CHUNKS: usize = 64;

/// How many different descriptors a heap can hold.
pub(super) const MAX_DESCRIPTORS: usize = CHUNK * CHUNKS;

/// Descriptors by number. Records never move and are looked up without a lock.
pub(super) struct Registry {
    chunks: [OnceLock<Box<[OnceLock<Record>]>>; CHUNKS],
    ids: Mutex<HashMap<Descriptor, u32>>,
    /// The spaces that have or had blocks, so that a cycle's end visits no others.
    used: Mutex<Vec<(DescriptorId, usize)>>,
}

/// One descriptor and its spaces, one for each class.
pub(super) struct Record {
    pub(super) descriptor: Descriptor,
    pub(super) spaces: [Mutex<Space>; CLASSES],
}

/// The blocks of one descriptor and class, but for those that an allocator has taken.
#[derive(Default)]
pub(super) struct Space {
    /// Swept, and with free cells.
    pub(super) available: Vec<usize>,
    /// Filled since the last cycle.
    pub(super) full: Vec<usize>,
    /// Swept, and without free cells: all are marked, if marks are kept, so that a cycle which keeps them finds nothing there.
    pub(super) old: Vec<usize>,
    /// Not swept since the last cycle.
    pub(super) unswept: Vec<usize>,
    /// Whether the space stands in `Registry::used`.
    known: bool,
}

impl Registry {
    pub(super) fn new() -> Registry {
        Registry { chunks: [const { OnceLock::new() }; CHUNKS], ids: Mutex::default(), used: Mutex::default() }
    }

    /// The number of `descriptor`: a new one, or that of an equal one.
    pub(super) fn register(&self, descriptor: Descriptor) -> Result<DescriptorId, DescriptorError> {
        let mut ids = self.ids.lock();
        if let Some(id) = ids.get(&descriptor) {
            return Ok(DescriptorId(*id));
        }
        let id = ids.len();
        if id == MAX_DESCRIPTORS {
            return Err(DescriptorError::TooMany { limit: MAX_DESCRIPTORS });
        }
        let chunk = self.chunks[id / CHUNK].get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        chunk[id % CHUNK].get_or_init(|| Record {
            descriptor: descriptor.clone(),
            spaces: [const { Mutex::new(Space::new()) }; CLASSES],
        });
        ids.insert(descriptor, id as u32);
        Ok(DescriptorId(id as u32))
    }

    /// The record of a descriptor, if the number was given out.
    pub(super) fn record(&self, id: DescriptorId) -> Option<&Record> {
        self.chunks.get(id.0 as usize / CHUNK)?.get()?[id.0 as usize % CHUNK].get()
    }

    /// Notes that a space has blocks.
    pub(super) fn note_used(&self, space: &mut Space, id: DescriptorId, class: usize) {
        if !std::mem::replace(&mut space.known, true) {
            self.used.lock().push((id, class));
        }
    }

    /// The spaces that have or had blocks.
    pub(super) fn used_spaces(&self) -> Vec<(DescriptorId, usize)> {
        self.used.lock().clone()
    }

    /// The space of a descriptor that was given out.
    pub(super) fn space(&self, id: DescriptorId, class: usize) -> &Mutex<Space> {
        &self.record(id).expect("blocks belong to registered descriptors").spaces[class]
    }
}

impl Space {
    const fn new() -> Space {
        Space { available: Vec::new(), full: Vec::new(), old: Vec::new(), unswept: Vec::new(), known: false }
    }

    /// At a cycle's end: everything is to be swept; only what may hold unmarked objects, if earlier cycles' marks were kept.
    pub(super) fn condemn(&mut self, kept: bool) {
        if self.unswept.is_empty() {
            std::mem::swap(&mut self.unswept, &mut self.full);
        }
        if !kept {
            self.unswept.append(&mut self.old);
        }
        self.unswept.append(&mut self.full);
        self.unswept.append(&mut self.available);
    }
}
