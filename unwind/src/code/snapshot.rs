//! A reader's view of what is registered.

use std::fmt;
use std::ops::Range;

use super::published::{Found, Published};
use crate::frame::FrameKind;
use crate::image::{Image, ImageError};
use crate::rcu::RcuReader;
use crate::rule::UnwindRule;
use crate::safepoint_table::SafepointRef;

/// What was registered at one moment. Nothing that it shows is freed while it lives.
pub struct Snapshot<'c> {
    pub(super) published: RcuReader<'c, Published>,
}

impl Snapshot<'_> {
    #[inline]
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// The function of managed code that holds `pc`. For a return address, pass the byte before it.
    pub fn function(&self, pc: usize) -> Option<FunctionRef<'_>> {
        let region = self.published().region(pc)?;
        let (name, range, moves_return_address) = region.function(pc)?;
        Some(FunctionRef { region: region.name(), name, range, moves_return_address })
    }

    /// The safepoint at a return address.
    #[inline]
    pub fn safepoint(&self, return_address: usize) -> Option<SafepointRef<'_>> {
        self.published().region(return_address.wrapping_sub(1))?.safepoints().get(return_address)
    }

    /// The number of safepoints in all regions, and the bytes of memory that their tables take.
    pub fn safepoint_tables(&self) -> (usize, usize) {
        let sizes = self.published().regions.values().map(|region| region.safepoints().size());
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// The image that holds `pc`.
    pub fn image(&self, pc: usize) -> Option<&Image> {
        self.published().images.iter().find(|image| image.holds(pc)).map(|image| &**image)
    }

    /// Reads the CFI of all images, so that traces in signal handlers find it. Allocates.
    ///
    /// # Errors
    ///
    /// The CFI of an image cannot be read. Images after it are not read then.
    pub fn read_images(&self) -> Result<(), ImageError> {
        self.published().images.iter().try_for_each(|image| image.read())
    }

    /// How the caller of a frame at `pc` is found. For a return address, pass the byte before it.
    /// `None` if no code and no image covers it. Reads the image's CFI if that has not been done.
    ///
    /// # Errors
    ///
    /// The CFI of the image that holds `pc` cannot be used.
    pub fn rule(&self, pc: usize) -> Result<Option<UnwindRule<'_>>, ImageError> {
        self.published().rule(pc, true)
    }

    /// What kind of code holds `pc`; `None` for code that only an image describes.
    pub fn kind(&self, pc: usize) -> Option<FrameKind> {
        Some(match self.published().find(pc)? {
            Found::Region(_) => FrameKind::Managed,
            Found::Native(native) => native.kind,
        })
    }
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.published().fmt(f)
    }
}

/// A function of managed code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef<'s> {
    /// The name of its region.
    pub region: &'s str,
    /// Its own name.
    pub name: &'s str,
    /// Where its code lies.
    pub range: Range<usize>,
    /// Whether it moves its return address.
    pub moves_return_address: bool,
}
