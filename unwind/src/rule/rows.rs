//! The rows of CFI that one table could not pack, each once, and their expressions.

use std::collections::HashMap;

use super::packed::{PackedRule, Shape};
use super::row::{Bytes, CfiRow};
use super::unwind_rule::UnwindRule;

/// The rows of one table that are not packed, each once, and their expressions.
#[derive(Clone, Debug, Default)]
pub(crate) struct CfiRows {
    rows: Vec<CfiRow>,
    numbers: HashMap<CfiRow, u32>,
    expressions: Vec<u8>,
    places: HashMap<Vec<u8>, Bytes>,
}

impl CfiRows {
    /// The number of a row whose expressions lie in `section`. Adds the row if it is new.
    pub(crate) fn add(&mut self, found: &CfiRow, section: &[u8]) -> u32 {
        let (places, expressions) = (&mut self.places, &mut self.expressions);
        let row = found.moved(|at| {
            let bytes = at.of(section);
            *places.entry(bytes.to_vec()).or_insert_with(|| {
                let place = Bytes { offset: expressions.len() as u32, len: bytes.len() as u32 };
                expressions.extend(bytes);
                place
            })
        });
        let rows = &mut self.rows;
        *self.numbers.entry(row.clone()).or_insert_with(|| {
            rows.push(row);
            rows.len() as u32 - 1
        })
    }

    /// Forgets what only adding needs.
    pub(crate) fn closed(mut self) -> CfiRows {
        (self.numbers, self.places) = Default::default();
        self.rows.shrink_to_fit();
        self.expressions.shrink_to_fit();
        self
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<CfiRow>() + self.expressions.len()
    }

    /// The rule that `rule` stands for, to be evaluated or printed; `None` where there is none.
    pub(crate) fn resolve(&self, rule: PackedRule) -> Option<UnwindRule<'_>> {
        match rule.shape() {
            Shape::None => None,
            Shape::Row(_, number) => {
                Some(UnwindRule::row(self.rows[number as usize].clone(), &self.expressions))
            }
            _ => Some(UnwindRule::packed(rule)),
        }
    }
}
