//! Standard output and standard error. Both are written at once, as Go does: whatever ends the
//! process, nothing that was printed is lost, and a forked child prints nothing again. Errors are
//! ignored: Go's print functions return them, and programs ignore them.

pub(crate) use crate::os::{write_error as error, write_output as write};
