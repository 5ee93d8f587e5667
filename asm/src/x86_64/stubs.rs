//! The geometry of the pool of barrier stubs, as `pool.s` lays it out.

/// Pages in the pool of barrier stubs.
pub const BARRIER_PAGES: usize = 64;

/// Stubs in each page of the pool.
pub const STUBS_PER_PAGE: usize = PAGE_BYTES / STUB_BYTES - HEADER_STUBS;

const PAGE_BYTES: usize = 4096;

/// Bytes of a stub: a `nop`, the call, a byte of padding.
pub(crate) const STUB_BYTES: usize = 8;

/// How many stubs would have room in the header of each page, which holds the distance to the
/// table.
pub(crate) const HEADER_STUBS: usize = 1;

/// Where in its stub a hijacked slot points: behind the `nop`.
pub(crate) const HIJACKED_AT: usize = 1;

/// Where in its stub an exception lands: where a return goes.
#[cfg(not(target_os = "windows"))]
pub(crate) const LANDS_AT: usize = HIJACKED_AT;
