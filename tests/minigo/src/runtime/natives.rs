//! The names that compiled code knows.

pub(crate) use stackmark_asm::layout::NativeFn;

pub(crate) use super::alloc::{
    ZEROES, allocate, copy_value, write_barrier, write_barrier_into, write_barrier_lost,
    zero_memory, zero_size_address,
};
pub(crate) use super::channel::{
    ELEMENT_OFFSET, PARKED, channel_close, channel_fetch, channel_length, channel_make,
    channel_receive, channel_send,
};
pub(crate) use super::compare::{compare_strings, equal_interfaces, equal_memory};
pub(crate) use super::fail::Failure;
pub(crate) use super::foreign::{
    c_bytes, c_string, errno_value, foreign_call, go_bytes, go_string, go_string_n,
};
pub(crate) use super::goroutine::{collect, exit, go, nanoseconds, num_goroutine};
pub(crate) use super::interface::{
    assertion_error, find_method, implements, take_panic, take_text,
};
pub(crate) use super::map::{map_assign, map_delete, map_find, map_make, map_next};
pub(crate) use super::panic::{
    DEFER_HEAD, DEFER_LINK, defer_enter, fail_value, goexit_begin, panic_after, panic_begin,
    panic_next, panics_running, raised_value, recover,
};
pub(crate) use super::print::{
    Print, fmt_print, fmt_printf, fmt_println, fmt_sprint, fmt_sprintf, fmt_sprintln, print,
};
pub(crate) use super::queue::SELECTED;
pub(crate) use super::select::{CASE_ELEMENT, CASE_WORDS, select, select_woken};
pub(crate) use super::slice::{append_slice, copy_slice, grow_slice};
pub(crate) use super::string::{
    bytes_of_string, concatenate, decode_rune, runes_of_string, string_of_bytes, string_of_rune,
    string_of_runes,
};

/// All functions that compiled code may call. A program that was built knows them by their places,
/// and is linked with the runtime of the same version.
pub(crate) static ALL: &[NativeFn] = &[
    stackmark::stack::poll,
    allocate,
    append_slice,
    assertion_error,
    bytes_of_string,
    channel_close,
    channel_fetch,
    channel_length,
    channel_make,
    channel_receive,
    channel_send,
    collect,
    compare_strings,
    concatenate,
    copy_slice,
    copy_value,
    decode_rune,
    defer_enter,
    equal_interfaces,
    equal_memory,
    exit,
    fail_value,
    find_method,
    fmt_print,
    fmt_printf,
    fmt_println,
    fmt_sprint,
    fmt_sprintf,
    fmt_sprintln,
    go,
    goexit_begin,
    grow_slice,
    implements,
    map_assign,
    map_delete,
    map_find,
    map_make,
    map_next,
    nanoseconds,
    num_goroutine,
    panic_after,
    panic_begin,
    panic_next,
    panics_running,
    print,
    raised_value,
    recover,
    runes_of_string,
    select,
    select_woken,
    string_of_bytes,
    string_of_rune,
    string_of_runes,
    take_panic,
    take_text,
    write_barrier,
    write_barrier_into,
    write_barrier_lost,
    zero_memory,
];
