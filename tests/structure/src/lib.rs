//! Reads the sources of a crate as far as its layout needs it: the tree of its modules and what
//! imports what.
//!
//! The parsing is a small one of its own, without dependencies. It knows tokens, attributes, `mod`,
//! `use` and paths. What only tests, models and fuzzing compile is left out. Definitions of macros
//! are skipped.
//!
//! Of the guide it reads what its pages include and link to.

mod circles;
mod guide;
mod imports;
mod lexer;
mod tree;

pub use circles::circles;
pub use guide::Page;
pub use imports::{Import, imports};
pub use lexer::{Kind, Token, tokens};
pub use tree::{Module, Source, crate_tree};
