//! The table of one piece of code: from a pc to its packed rule, in one probe of a bucket of 512
//! bytes of code.
//!
//! A row holds the pc's low bits and the number of a rule. The rows of one bucket lie side by side.
//! A head per bucket says where they begin and which rule is in force at the bucket's start. So a
//! look-up reads two heads, some adjacent words and the rule. Real code has eight rows in a bucket.
//! Smaller buckets would take more memory for heads than for rows; and pcs that are met often are
//! found in a safepoint table or a [`RuleCache`](crate::RuleCache) already.

use std::collections::HashMap;

use crate::cfi::{CfiError, FunctionRows};
use crate::rule::{CfiRows, PackedRule, UnwindRule};

const BUCKET_SHIFT: u32 = 9;
const BUCKET_MASK: u64 = (1 << BUCKET_SHIFT) - 1;

#[derive(Debug)]
struct Head {
    /// Index of the first row that begins inside the bucket.
    first: u32,
    /// The rule in force at the bucket's first byte.
    inherited: u16,
}

/// Compiled rules of the code in `start..end`.
#[derive(Debug)]
pub(crate) struct RuleTable {
    start: u64,
    end: u64,
    /// One a bucket, and one that closes the last bucket.
    heads: Vec<Head>,
    /// `(pc & BUCKET_MASK) << 16 | rule number`, ascending within a bucket.
    rows: Vec<u32>,
    /// Each distinct rule once.
    rules: Vec<PackedRule>,
    unpacked: CfiRows,
}

impl RuleTable {
    /// Compiles `functions`, in any order, into a table that reaches from the first to the last.
    /// `unpacked` holds the rows that their rules name.
    pub(crate) fn build(
        mut functions: Vec<FunctionRows>,
        unpacked: CfiRows,
    ) -> Result<RuleTable, CfiError> {
        functions.sort_by_key(|function| function.start);
        let range = match (functions.first(), functions.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        };
        // Boundaries: where each rule begins, gaps between functions included.
        let mut rows: Vec<(u64, PackedRule)> = vec![(range.start, PackedRule::NONE)];
        let mut push = |at: u64, rule: PackedRule| match rows.last_mut() {
            Some(last) if last.0 == at => last.1 = rule,
            Some(last) if last.1 == rule => {}
            _ => rows.push((at, rule)),
        };
        let mut covered = range.start;
        for function in functions {
            if function.start < covered {
                return Err(CfiError::Overlap { pc: function.start });
            }
            if function.start > covered {
                push(covered, PackedRule::NONE);
            }
            for (at, rule) in function.rows {
                push(at, rule);
            }
            covered = function.end;
        }
        push(covered, PackedRule::NONE);

        let mut rules = Vec::new();
        let mut numbers: HashMap<PackedRule, u16> = HashMap::new();
        let mut number = |rule: PackedRule| match numbers.get(&rule) {
            Some(number) => Ok(*number),
            None => {
                let number = u16::try_from(rules.len()).map_err(|_| CfiError::TooManyRules)?;
                rules.push(rule);
                numbers.insert(rule, number);
                Ok(number)
            }
        };
        let buckets = (range.end - range.start).div_ceil(1 << BUCKET_SHIFT);
        let mut table = RuleTable {
            start: range.start,
            end: range.end,
            heads: Vec::with_capacity(buckets as usize + 1),
            rows: Vec::with_capacity(rows.len()),
            rules: Vec::new(),
            unpacked: unpacked.closed(),
        };
        let mut inherited = number(PackedRule::NONE)?;
        let mut rows = rows.into_iter().peekable();
        for bucket in 0..buckets {
            table.heads.push(Head { first: table.rows.len() as u32, inherited });
            while let Some((at, rule)) =
                rows.next_if(|row| (row.0 - range.start) >> BUCKET_SHIFT == bucket)
            {
                inherited = number(rule)?;
                table
                    .rows
                    .push((((at - range.start) & BUCKET_MASK) as u32) << 16 | u32::from(inherited));
            }
        }
        table.heads.push(Head { first: table.rows.len() as u32, inherited });
        table.rules = rules;
        Ok(table)
    }

    /// The rule in force at `pc`, to be evaluated; `None` where nothing covers it.
    pub(crate) fn unwind_rule(&self, pc: u64) -> Option<UnwindRule<'_>> {
        self.resolve(self.rule(pc))
    }

    /// What one of the table's rules stands for.
    pub(crate) fn resolve(&self, rule: PackedRule) -> Option<UnwindRule<'_>> {
        self.unpacked.resolve(rule)
    }

    /// Whether it covers no code.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of memory that the table takes.
    pub(crate) fn bytes(&self) -> usize {
        let RuleTable { heads, rows, rules, unpacked, .. } = self;
        size_of_val(&**heads) + size_of_val(&**rows) + size_of_val(&**rules) + unpacked.bytes()
    }

    /// The rule in force at `pc`; [`PackedRule::NONE`] where nothing covers it.
    #[inline]
    pub(crate) fn rule(&self, pc: u64) -> PackedRule {
        if pc < self.start || pc >= self.end {
            return PackedRule::NONE;
        }
        let at = pc - self.start;
        let bucket = (at >> BUCKET_SHIFT) as usize;
        let head = &self.heads[bucket];
        let rows = &self.rows[head.first as usize..self.heads[bucket + 1].first as usize];
        let limit = ((at & BUCKET_MASK) as u32) << 16 | 0xffff;
        let behind = rows.partition_point(|row| *row <= limit);
        let number = behind.checked_sub(1).map_or(head.inherited, |last| rows[last] as u16);
        self.rules[number as usize]
    }
}

#[cfg(test)]
mod tests;
