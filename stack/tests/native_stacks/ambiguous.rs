//! Roots in native frames that have called managed code, for those who ask for them.

use crate::*;
use std::hint::black_box;

/// What native code keeps in a plain word: the address of no object that managed frames have.
const KEPT_WORD: usize = 0x5eed_5eed_1000_u64 as usize;

/// Native code that keeps the word in its frame over a call of managed code. Out of line, so that
/// its frame is its own.
#[inline(never)]
fn keeps(f: &dyn Fn() -> usize) -> usize {
    let word = black_box([KEPT_WORD + 8, KEPT_WORD]);
    let result = f();
    assert_eq!(black_box(&word)[1], KEPT_WORD);
    result
}

fn found(setting: &Setting) -> bool {
    setting.roots.0.lock().contains(&KEPT_WORD)
}

#[test]
#[cfg_attr(stackmark_asan, ignore = "AddressSanitizer moves locals off the stack")]
#[cfg_attr(target_arch = "arm", ignore = "words above the oldest frame count, and change")]
fn words_of_native_frames_between_managed_ones_are_roots_where_that_is_asked_for() {
    for asked in [false, true] {
        for config in configs() {
            let setting = &Setting::new(Config { ambiguous_native_roots: asked, ..config });
            setting.on(Stack::Threads, || {
                let scans = || {
                    caller().foreign(|| setting.scan());
                    assert_eq!(found(setting), asked);
                    0
                };
                // Far below, so that workers come to it, too.
                fn down(setting: &Setting, level: usize, bottom: Act<'_>) -> usize {
                    setting.call(Stack::Threads, 3, &|| match level {
                        0 => bottom(),
                        _ => down(setting, level - 1, bottom),
                    })
                }
                let inside = || keeps(&|| down(setting, 100, &scans));
                setting.call(Stack::Threads, 3, &inside);
                // Below all managed frames, too.
                keeps(&|| setting.call(Stack::Threads, 3, &scans));
                // The native frames have gone.
                clears();
                let act = || {
                    caller().foreign(|| setting.scan());
                    assert!(!found(setting));
                    0
                };
                setting.call(Stack::Threads, 3, &act);
            });
            setting.check_at_end();
        }
    }
}

/// Overwrites what the native frames before have left.
#[inline(never)]
fn clears() {
    black_box([0_u8; 64 << 10]);
}

#[test]
#[cfg_attr(stackmark_asan, ignore = "AddressSanitizer moves locals off the stack")]
#[cfg_attr(target_arch = "arm", ignore = "words above the oldest frame count, and change")]
fn a_short_scan_finds_the_words_of_native_frames_that_have_run() {
    let setting = &Setting::new(Config { ambiguous_native_roots: true, ..Config::default() });
    setting.on(Stack::Threads, || {
        let outer = || {
            let scans = |scope| {
                setting.call(Stack::Threads, 2, &|| {
                    caller().foreign(|| setting.cycle(scope));
                    0
                })
            };
            scans(ScanScope::Whole);
            assert!(!found(setting));
            // This frame runs again, and has the word now.
            keeps(&|| scans(ScanScope::Short));
            assert!(found(setting));
            0
        };
        setting.call(Stack::Threads, 200, &outer)
    });
    setting.check_at_end();
}
