//! The registered descriptors, and the blocks of each descriptor and size class.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex as Lock;
use stackmark_stack::sync::Mutex;

use super::blocks::Space;
use super::class::CLASSES;
use super::descriptor::{Descriptor, DescriptorError, DescriptorId};

/// A record takes almost a page, and most programs have few.
const CHUNK: usize = 16;
const CHUNKS: usize = 1024;

/// How many different descriptors a heap can hold.
pub(super) const MAX_DESCRIPTORS: usize = CHUNK * CHUNKS;

/// Descriptors by number. Records never move and are looked up without a lock.
pub(super) struct Registry {
    chunks: [OnceLock<Box<[OnceLock<Record>]>>; CHUNKS],
    ids: Lock<HashMap<Descriptor, u32>>,
    /// The spaces that have or had blocks, so that a cycle's end visits no others.
    used: Lock<Vec<usize>>,
}

/// One descriptor and its spaces, one for each class.
pub(super) struct Record {
    pub(super) descriptor: Descriptor,
    pub(super) spaces: [Mutex<Space>; CLASSES],
}

impl Registry {
    pub(super) fn new() -> Registry {
        Registry {
            chunks: [const { OnceLock::new() }; CHUNKS],
            ids: Lock::default(),
            used: Lock::default(),
        }
    }

    /// The id of `descriptor`: that of an equal one, or a new one.
    ///
    /// # Errors
    /// When there are [`MAX_DESCRIPTORS`] already.
    pub(super) fn register(&self, descriptor: Descriptor) -> Result<DescriptorId, DescriptorError> {
        let mut ids = self.ids.lock();
        if let Some(id) = ids.get(&descriptor) {
            return Ok(DescriptorId(*id));
        }
        let id = ids.len();
        if id == MAX_DESCRIPTORS {
            return Err(DescriptorError::TooMany { limit: MAX_DESCRIPTORS });
        }
        let chunk =
            self.chunks[id / CHUNK].get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        chunk[id % CHUNK].get_or_init(|| Record {
            descriptor: descriptor.clone(),
            spaces: std::array::from_fn(|_| Mutex::default()),
        });
        ids.insert(descriptor, id as u32);
        Ok(DescriptorId(id as u32))
    }

    /// The record of a descriptor, if it is registered.
    pub(super) fn record(&self, id: DescriptorId) -> Option<&Record> {
        self.chunks.get(id.0 as usize / CHUNK)?.get()?[id.0 as usize % CHUNK].get()
    }

    /// Notes that a space has blocks.
    pub(super) fn note_used(&self, space: usize) {
        if !std::mem::replace(&mut self.space(space).lock().known, true) {
            self.used.lock().push(space);
        }
    }

    /// The spaces that have or had blocks.
    pub(super) fn used_spaces(&self) -> Vec<usize> {
        self.used.lock().clone()
    }

    /// The lists of a space of a registered descriptor.
    pub(super) fn space(&self, space: usize) -> &Mutex<Space> {
        &self.of(space).spaces[space % CLASSES]
    }

    /// The record that a space belongs to.
    pub(super) fn of(&self, space: usize) -> &Record {
        self.record(descriptor_of(space)).expect("blocks belong to registered descriptors")
    }
}

/// The number of the space of a descriptor and class.
#[inline]
pub(super) fn space_of(id: DescriptorId, class: usize) -> usize {
    id.0 as usize * CLASSES + class
}

/// The descriptor of a space.
pub(super) fn descriptor_of(space: usize) -> DescriptorId {
    DescriptorId((space / CLASSES) as u32)
}
