//! The personalities of the frames that must do something when an exception passes. The interface
//! of the system's unwinder has two forms.

#[cfg(target_arch = "arm")]
mod ehabi;
#[cfg(not(target_arch = "arm"))]
mod itanium;
