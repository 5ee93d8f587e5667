//! Faults for tests of the verification: what a binding without barriers would do wrong.

use parking_lot::Mutex;
use stackmark_stack::RootSlot;
use std::collections::HashSet;

/// A fault that tests make. No fault is the default.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault(pub(crate) Kind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    None,
    IgnoredBarriers,
    KeptSlots,
    DerivedAlone,
}

impl Fault {
    /// A short scan ends at the youngest frame, whatever barrier is still unhit.
    ///
    /// # Safety
    /// The process ends when verification has found it, and before managed code runs again.
    pub const unsafe fn ignored_barriers() -> Fault {
        Fault(Kind::IgnoredBarriers)
    }

    /// A collection gets the slots of the last one, between which the world has run.
    ///
    /// # Safety
    /// As [`Fault::ignored_barriers`].
    pub const unsafe fn kept_slots() -> Fault {
        Fault(Kind::KeptSlots)
    }

    /// A pointer that is derived from a reference is written, and the reference is not.
    ///
    /// # Safety
    /// As [`Fault::ignored_barriers`].
    pub const unsafe fn derived_alone() -> Fault {
        Fault(Kind::DerivedAlone)
    }
}

/// What a fault remembers.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    pause: u64,
    last: Vec<RootSlot>,
    present: Vec<RootSlot>,
}

impl Memory {
    /// What a fault makes of slots that are handed over in this pause.
    pub(crate) fn wrong(
        &self,
        fault: Fault,
        pause: u64,
        short: bool,
        slots: &[RootSlot],
    ) -> Vec<RootSlot> {
        match fault.0 {
            Kind::IgnoredBarriers if short => slots.iter().take(1).copied().collect(),
            Kind::None | Kind::IgnoredBarriers => slots.to_vec(),
            Kind::KeptSlots => self.of_last_pause(pause, slots),
            Kind::DerivedAlone => {
                let bases: HashSet<usize> = slots.iter().filter_map(base_of_derived).collect();
                let alone = |slot: &&RootSlot| match **slot {
                    RootSlot::Reference { base, derived } => {
                        base != derived || !bases.contains(&base)
                    }
                    RootSlot::Ambiguous(_) => true,
                };
                slots.iter().filter(alone).copied().collect()
            }
        }
    }

    fn of_last_pause(&self, pause: u64, slots: &[RootSlot]) -> Vec<RootSlot> {
        let kept = &mut *self.0.lock();
        let begins = kept.pause != pause;
        if begins {
            kept.pause = pause;
            kept.last = std::mem::take(&mut kept.present);
        }
        kept.present.extend_from_slice(slots);
        match kept.last.is_empty() {
            true => slots.to_vec(),
            false if begins => kept.last.clone(),
            false => Vec::new(),
        }
    }
}

fn base_of_derived(slot: &RootSlot) -> Option<usize> {
    match *slot {
        RootSlot::Reference { base, derived } if base != derived => Some(base),
        _ => None,
    }
}
