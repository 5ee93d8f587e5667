//! One version of everything that is registered, and the look-ups in it.

use std::ops::Range;
use std::sync::Arc;

use super::changes::Changes;
use super::native::{Native, NativeStep};
use super::range_map::RangeMap;
use crate::frame::FrameKind;
use crate::image::{Image, ImageError};
use crate::region::CompiledRegion;
use crate::rule::{PackedRule, UnwindRule};

/// One version of everything that is registered. Regions and natives overlap nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(super) regions: RangeMap<CompiledRegion>,
    pub(super) natives: RangeMap<Native>,
    /// Images may lie around natives. The rules of natives come first.
    pub(super) images: Arc<[Arc<Image>]>,
    /// The loader's generation when the images of the process were noted.
    pub(super) generation: (u64, u64),
    /// The return address behind which a coroutine of the process's C library has no caller; 0 if
    /// there is none.
    pub(crate) context_end: usize,
    /// The number of the [`Code`](super::Code), unique in the process.
    pub(crate) code: u64,
    /// Greater than those of all earlier versions of this code.
    pub(crate) version: u64,
    /// Where the rule for a pc may be another one than it was. That a pc has a rule now, and had
    /// none before, is no such change.
    pub(crate) changes: Changes,
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
                // There is one for a walk along the managed frames alone.
                NativeStep::Anchor(_) => Ok(None),
                NativeStep::End => Ok(Some(UnwindRule::packed(PackedRule::OLDEST))),
            },
            None => by_image().unwrap_or(Ok(None)),
        }
    }

    /// The rule for a pc of any code, if it is a simple one that can be said at once. Otherwise
    /// [`rule`](Published::rule) says what there is. It takes no lock and allocates nothing.
    pub(crate) fn quick_rule(&self, pc: usize) -> Option<PackedRule> {
        match self.find(pc) {
            Some(Found::Region(region)) => {
                Some(region.rule(pc)).filter(|rule| rule.simple().is_some())
            }
            Some(Found::Native(_)) => None,
            None => self.images.iter().find(|image| image.holds(pc))?.quick_rule(pc),
        }
    }

    pub(crate) fn find(&self, pc: usize) -> Option<Found<'_>> {
        match self.region(pc) {
            Some(region) => Some(Found::Region(region)),
            None => self.natives.get(pc).map(Found::Native),
        }
    }

    #[inline]
    pub(crate) fn region(&self, pc: usize) -> Option<&CompiledRegion> {
        self.regions.get(pc)
    }

    /// Whether an image has code in `range`.
    pub(super) fn has_image_code(&self, range: &Range<usize>) -> bool {
        let mut code = self.images.iter().flat_map(|image| image.code());
        code.any(|code| code.start < range.end && range.start < code.end)
    }

    /// Notes that the rules in `range` are others than they were in the version before.
    pub(super) fn changed(&mut self, range: Range<usize>) {
        self.changes.add(self.version, range);
    }

    /// What overlaps `range`, in words.
    pub(super) fn overlapping(&self, range: &Range<usize>) -> Option<String> {
        match (self.regions.overlapping(range), self.natives.overlapping(range)) {
            (Some(region), _) => Some(format!("region {}", region.name())),
            (_, Some(native)) => {
                Some(format!("{:?} code at {:#x}", native.kind, native.range.start))
            }
            _ => None,
        }
    }
}
