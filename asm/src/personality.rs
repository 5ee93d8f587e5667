//! The personalities of the frames that must do something when an exception passes. The interface
//! of the system's unwinder has three forms.

#[cfg(target_arch = "arm")]
mod ehabi;
#[cfg(not(any(target_arch = "arm", target_os = "windows")))]
mod itanium;
#[cfg(target_os = "windows")]
mod seh;
