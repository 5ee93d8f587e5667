//! Stack maps as compilers give them, turned into [`Safepoint`](crate::Safepoint)s.

pub mod cranelift;
