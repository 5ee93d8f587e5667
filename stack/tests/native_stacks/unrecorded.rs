//! A thread's own stack, where no memory near it is left for the records of barriers.

use super::*;
use stackmark_stack::REFUSALS;
use std::ops::Range;
use windows_sys::Win32::System::Memory::{MEM_RESERVE, PAGE_NOACCESS, VirtualAlloc};
use windows_sys::Win32::System::Threading::GetCurrentThreadStackLimits;

/// Set in the process of the test's own: what one thread has found would serve others.
const INNER: &str = "STACKMARK_TEST_UNRECORDED";
/// The system hands out addresses in multiples of it.
const GRANULARITY: usize = 1 << 16;

/// Takes all of these addresses that are free, for good.
fn take(range: Range<usize>) {
    let (kind, protection) = (MEM_RESERVE, PAGE_NOACCESS);
    // SAFETY: addresses that nobody has, or the call fails.
    let at = unsafe { VirtualAlloc(range.start as *const _, range.len(), kind, protection) };
    if at.is_null() && range.len() > GRANULARITY {
        let middle = (range.start + range.len() / 2) / GRANULARITY * GRANULARITY;
        take(range.start..middle);
        take(middle..range.end);
    }
}

/// Takes all free addresses from this thread's stack up to 4 GiB above it, for good.
fn take_addresses_above_this_stack() {
    let (mut low, mut high) = (0, 0);
    // SAFETY: the system writes two words.
    unsafe { GetCurrentThreadStackLimits(&raw mut low, &raw mut high) };
    take(high.next_multiple_of(GRANULARITY)..low.next_multiple_of(GRANULARITY) + (1 << 32));
}

#[test]
fn a_stack_without_records_of_barriers_is_scanned_whole() {
    const LEVELS: usize = 300;
    if std::env::var_os(INNER).is_none() {
        let name = "unrecorded::a_stack_without_records_of_barriers_is_scanned_whole";
        let mut again = limits::this_program();
        let ran = again.args(["--exact", name, "--nocapture"]).env(INNER, "1").output();
        let ran = ran.expect("this program");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        return;
    }
    for config in configs() {
        let setting = Setting::new(config);
        let run = || {
            take_addresses_above_this_stack();
            attach(&setting.runtime).expect("a new thread");
            fn down(setting: &Setting, level: usize) -> usize {
                setting.call(Stack::Threads, 3, &|| {
                    caller().foreign(|| {
                        if level < LEVELS {
                            return down(setting, level + 1);
                        }
                        assert!(setting.scan().len() >= LEVELS);
                        1
                    })
                })
            }
            assert_eq!(down(&setting, 1), LEVELS * rec_adds(3) + 1);
        };
        thread::scope(|scope| scope.spawn(run).join()).expect("no panic");
        let counters = setting.runtime.counters();
        let refused: BTreeMap<_, _> = REFUSALS.iter().zip(&counters.refused).collect();
        let placed = counters.placed.load(Relaxed);
        assert!(refused[&"no_record"].load(Relaxed) > 0 && placed == 0, "{placed}, {refused:?}");
        setting.check_at_end();
    }
}
