//! One version of everything that is registered, and the look-ups in it.

use std::ops::Range;
use std::sync::Arc;

use super::native::{Native, NativeStep};
use crate::frame::FrameKind;
use crate::image::{Image, ImageError};
use crate::region::CompiledRegion;
use crate::rule::{PackedRule, UnwindRule};

/// One version of everything that is registered. Both lists are sorted by address and overlap
/// nowhere.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(super) regions: Vec<Arc<CompiledRegion>>,
    pub(super) natives: Vec<Arc<Native>>,
    /// Images may lie around natives. The rules of natives come first.
    pub(super) images: Vec<Arc<Image>>,
    /// The loader's generation when the images of the process were noted.
    pub(super) generation: (u64, u64),
    /// Unique in the process.
    pub(crate) version: u64,
}

/// What holds a pc.
#[derive(Clone, Copy)]
pub(crate) enum Found<'s> {
    Region(&'s CompiledRegion),
    Native(&'s Native),
}

impl<'s> Found<'s> {
    /// What a rule of this code stands for.
    pub(crate) fn resolve(self, rule: PackedRule) -> Option<UnwindRule<'s>> {
        match self {
            Found::Region(region) => region.resolve(rule),
            Found::Native(native) => native.resolve(rule),
        }
    }
}

impl Published {
    /// The rule for a pc of any code. Unless `read`, it takes no lock, allocates nothing, and finds
    /// only images that have been read.
    pub(crate) fn rule(&self, pc: usize, read: bool) -> Result<Option<UnwindRule<'_>>, ImageError> {
        let by_image = || {
            let image = self.images.iter().find(|image| image.holds(pc))?;
            Some(if read { image.rule(pc) } else { image.rule_if_read(pc) })
        };
        match self.find(pc) {
            Some(found @ Found::Region(region)) => Ok(found.resolve(region.rule(pc))),
            // To the native caller, not along the managed stack.
            Some(Found::Native(native))
                if native.kind == FrameKind::Callback
                    && let Some(rule) = by_image() =>
            {
                rule
            }
            Some(found @ Found::Native(native)) => match native.step(pc) {
                NativeStep::By(rule) => Ok(found.resolve(rule)),
                NativeStep::End => Ok(Some(UnwindRule::packed(PackedRule::OLDEST))),
            },
            None => by_image().unwrap_or(Ok(None)),
        }
    }

    pub(crate) fn find(&self, pc: usize) -> Option<Found<'_>> {
        if let Some(region) = self.region(pc) {
            return Some(Found::Region(region));
        }
        let i = self.natives.partition_point(|native| native.range.start <= pc);
        let native = self.natives.get(i.checked_sub(1)?)?;
        native.range.contains(&pc).then_some(Found::Native(native))
    }

    #[inline]
    pub(crate) fn region(&self, pc: usize) -> Option<&CompiledRegion> {
        let i = self.regions.partition_point(|region| region.range().start <= pc);
        let region = self.regions.get(i.checked_sub(1)?)?;
        region.range().contains(&pc).then_some(region)
    }

    /// What overlaps `range`, in words.
    pub(super) fn overlapping(&self, range: &Range<usize>) -> Option<String> {
        let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
        let region = self.regions.iter().find(|region| meets(&region.range()));
        let native = self.natives.iter().find(|native| meets(&native.range));
        match (region, native) {
            (Some(region), _) => Some(format!("region {}", region.name())),
            (_, Some(native)) => {
                Some(format!("{:?} code at {:#x}", native.kind, native.range.start))
            }
            _ => None,
        }
    }
}
