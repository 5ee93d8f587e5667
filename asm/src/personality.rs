//! The personalities of the frames that must do something when an exception passes. The interface
//! of the system's unwinder has two forms.

mod itanium;
