//! The example language.
