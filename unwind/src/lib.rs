//! From a pc to its caller.
