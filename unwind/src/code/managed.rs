//! The managed code of images, registered and forgotten as a whole.

use std::ops::Range;

use super::error::{CodeError, RegionId};

/// The registered managed code of an image: see
/// [`Code::register_image`](crate::Code::register_image).
#[derive(Clone, Debug)]
pub struct ManagedImage {
    pub(super) name: String,
    pub(super) ids: Vec<RegionId>,
    /// Where its regions lie, ascending.
    pub(super) code: Vec<Range<usize>>,
}

impl ManagedImage {
    /// The name of the image's file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its regions, by ascending addresses.
    pub fn regions(&self) -> &[RegionId] {
        &self.ids
    }

    /// Whether managed code of the image lies at `pc`. For a return address, pass the byte before
    /// it.
    pub fn holds(&self, pc: usize) -> bool {
        let behind = self.code.partition_point(|range| range.start <= pc);
        behind.checked_sub(1).is_some_and(|last| self.code[last].contains(&pc))
    }
}

/// Why the managed code of an image is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterImageError {
    /// The image's sections do not describe managed code.
    #[error(transparent)]
    Image(#[from] crate::managed_image::ManagedImageError),
    /// The code contradicts its maps, or is registered already.
    #[error(transparent)]
    Code(#[from] CodeError),
}
