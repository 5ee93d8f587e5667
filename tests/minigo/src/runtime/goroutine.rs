//! `go`, and the functions of package runtime.

use super::arguments::natives;
use super::host;
use std::sync::OnceLock;
use std::time::Instant;

natives! {
    /// (function object): a new goroutine calls it.
    fn go(a) {
        host::spawn(a.get(0));
        0
    }

    /// A collection, from start to end. The goroutine parks meanwhile.
    fn collect(a) {
        host::collect();
        0
    }

    /// How many goroutines there are.
    fn num_goroutine(a) {
        host::goroutines()
    }

    /// What the monotonic clock says.
    fn nanoseconds(a) {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as usize
    }

    /// The program is done.
    fn exit(a) {
        host::exit(0)
    }
}
