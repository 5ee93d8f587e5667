//! How often threads of this process ask the system to fence, stop and wake others: calls that take
//! microseconds, in which a change of a protocol shows.

use std::sync::atomic::{AtomicU64, Ordering};

// Relaxed, all: figures that order nothing. An addition is lost in what it counts.
static MEMBARRIERS: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);
static WAKES: AtomicU64 = AtomicU64::new(0);

/// See the module. Of this crate and of the collector, in all runtimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCounts {
    /// Fences of all threads.
    pub membarriers: u64,
    /// How often a thread has waited for a notification. Waits for locks do not count.
    pub waits: u64,
    /// How many threads were woken by a notification.
    pub wakes: u64,
}

impl ThreadCounts {
    /// What has come since.
    pub fn since(self, before: ThreadCounts) -> ThreadCounts {
        ThreadCounts {
            membarriers: self.membarriers - before.membarriers,
            waits: self.waits - before.waits,
            wakes: self.wakes - before.wakes,
        }
    }
}

/// The counts of this process until now.
pub fn thread_counts() -> ThreadCounts {
    ThreadCounts {
        membarriers: MEMBARRIERS.load(Ordering::Relaxed),
        waits: WAITS.load(Ordering::Relaxed),
        wakes: WAKES.load(Ordering::Relaxed),
    }
}

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
pub(super) fn count_membarrier() {
    MEMBARRIERS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(not(stackmark_loom))]
pub(super) fn count_wait() {
    WAITS.fetch_add(1, Ordering::Relaxed);
}

/// `threads` were woken.
#[cfg(not(stackmark_loom))]
pub(super) fn count_wakes(threads: usize) {
    if threads > 0 {
        WAKES.fetch_add(threads as u64, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::super::{Condvar, Mutex};
    use super::*;
    use std::time::Duration;

    /// Other tests of this process count, too: these are the least numbers.
    #[test]
    fn each_wait_and_each_wake_is_counted() {
        let (lock, condition) = (Mutex::new(false), Condvar::new());
        let before = thread_counts();
        drop(condition.wait_for(lock.lock(), Duration::ZERO));
        assert!(thread_counts().since(before).waits >= 1);
        let before = thread_counts();
        let waited = std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let (mut is_done, mut waited) = (lock.lock(), 0);
                while !*is_done {
                    is_done = condition.wait(is_done);
                    waited += 1;
                }
                waited
            });
            limits::wait_until("the thread is woken", || {
                *lock.lock() = true;
                condition.notify_one();
                waits.is_finished()
            });
            waits.join().expect("no panic")
        });
        // Each of its waits was ended by a wake.
        let all = thread_counts().since(before);
        assert!(all.waits >= waited && all.wakes >= waited, "{all:?}, {waited}");
    }

    #[test]
    fn what_has_come_since_is_the_difference() {
        let before = ThreadCounts { membarriers: 1, waits: 20, wakes: 300 };
        let now = ThreadCounts { membarriers: 5, waits: 26, wakes: 307 };
        assert_eq!(now.since(before), ThreadCounts { membarriers: 4, waits: 6, wakes: 7 });
    }
}
