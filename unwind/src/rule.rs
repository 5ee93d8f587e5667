//! Rules: how the caller of a frame is found. Most are packed into a word; a row of CFI that does
//! not fit is kept as it is and interpreted at each use.

mod expression;
mod packed;
mod recovery;
mod row;
mod rows;
mod unwind_rule;

pub use expression::ExpressionError;
pub use packed::Unsupported;
pub(crate) use packed::{Base, PackedRule, SavedBits, Shape};
pub use recovery::{Recovered, Recovery};
pub(crate) use row::{Bytes, Cfa, CfiRow, Saved};
pub(crate) use rows::CfiRows;
pub use unwind_rule::UnwindRule;
