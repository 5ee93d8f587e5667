//! The numbers that stand for choices and states in the header.

use std::ffi::c_int;

macro_rules! numbers {
    ($($name:ident: $type:ty = $value:literal;)*) => {
        $(pub(crate) const $name: $type = $value;)*

        /// All of them, by their names in C, for the test that compares them.
        #[cfg(test)]
        pub(crate) const NUMBERS: &[(&str, usize)] =
            &[$((concat!("STACKMARK_", stringify!($name)), $name as usize)),*];
    };
}

numbers! {
    BARRIERS_INCREMENTAL: u32 = 0;
    BARRIERS_RESCAN_LIMIT: u32 = 1;
    BARRIERS_EVERY_FRAME: u32 = 2;
    BARRIERS_OFF: u32 = 3;
    VECTORS_ALL: u32 = 0;
    VECTORS_NARROW: u32 = 1;
    VECTORS_RESULTS: u32 = 2;
    STACK_MOVING: u32 = 0;
    STACK_FIXED: u32 = 1;
    RUNNABLE: c_int = 0;
    RUNNING: c_int = 1;
    PARKED: c_int = 2;
    IN_FOREIGN: c_int = 3;
    DEAD: c_int = 4;
    LEFT_EXITED: c_int = 0;
    LEFT_PARKED: c_int = 1;
    LEFT_YIELDED: c_int = 2;
    FRAME_MANAGED: u32 = 0;
    FRAME_CALLBACK: u32 = 1;
    FRAME_SYSTEM_CALL: u32 = 2;
    FRAME_ENTRY: u32 = 3;
    FRAME_STUB: u32 = 4;
    BARRIER_INSERTION: u32 = 0;
    BARRIER_HYBRID: u32 = 1;
}
