//! What only assembly can do for Stackmark.
pub mod layout;
