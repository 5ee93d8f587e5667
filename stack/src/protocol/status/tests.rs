//! Which status leads to which, and what a holder sees, one step after another.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

const ALL: [Status; 5] =
    [Status::Runnable, Status::Running, Status::Foreign, Status::Parked, Status::Dead];
/// Those in which a goroutine stands still and can be held.
const STILL: [Status; 3] = [Status::Runnable, Status::Foreign, Status::Parked];

fn panics(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_goroutine_is_what_it_was_revived_as_or_has_stopped_to() {
    for status in ALL {
        let word = StatusWord::new(status);
        assert_eq!((word.get(), word.is_foreign()), (status, status == Status::Foreign));
        if status != Status::Running {
            let word = StatusWord::new(Status::Running);
            word.stop(status);
            assert_eq!((word.get(), word.is_foreign()), (status, status == Status::Foreign));
        }
    }
}

#[test]
fn a_record_has_several_lives() {
    let word = StatusWord::new(Status::Foreign);
    assert!(word.try_start(Status::Foreign));
    for status in STILL {
        word.stop(Status::Dead);
        word.revive(status);
        assert_eq!((word.get(), word.is_foreign()), (status, status == Status::Foreign));
        assert!(word.try_start(status));
    }
}

#[test]
fn what_stands_still_can_be_held_and_does_not_run_until_it_is_let_go() {
    for status in STILL {
        let (word, scan_lock) = (StatusWord::new(status), Mutex::new(7));
        for waits in [false, true] {
            let held = if waits { Some(word.hold(&scan_lock)) } else { word.hold_now(&scan_lock) };
            let held = held.expect("the lock is free").expect("it stands still");
            assert_eq!((held.status, *held.state, word.get()), (status, 7, status));
            assert!(scan_lock.try_lock().is_none(), "what the lock guards is the holder's");
            assert!(word.hold_now(&scan_lock).is_none(), "there is one holder");
            assert!(!word.try_start(status) && !word.try_start(status));
            assert_eq!((word.get(), word.is_foreign()), (status, status == Status::Foreign));
        }
        word.start_running(status, &scan_lock);
        assert_eq!((word.get(), word.is_foreign()), (Status::Running, false));
    }
}

#[test]
fn what_runs_or_is_dead_cannot_be_held() {
    for status in [Status::Running, Status::Dead] {
        let (word, scan_lock) = (StatusWord::new(status), Mutex::new(()));
        assert_eq!(word.hold(&scan_lock).err(), Some(status));
        assert_eq!(word.hold_now(&scan_lock).map(Result::err), Some(Some(status)));
        assert!(scan_lock.try_lock().is_some());
        assert_eq!(word.get(), status);
    }
}

/// Other threads see a return only when it has succeeded.
#[test]
fn a_goroutine_that_is_held_in_a_foreign_call_counts_as_foreign_while_it_tries_to_return() {
    let (word, scan_lock) = (StatusWord::new(Status::Foreign), Mutex::new(()));
    let held = word.hold(&scan_lock).expect("it stands still");
    // The first half of `try_return`.
    word.foreign.store(0, Ordering::Relaxed);
    assert_eq!((word.get(), word.is_foreign()), (Status::Foreign, false));
    drop(held);
    assert_eq!(word.get(), Status::Running);
}

#[test]
fn a_parked_goroutine_is_made_ready_and_stays_held() {
    let (word, scan_lock) = (StatusWord::new(Status::Parked), Mutex::new(()));
    word.ready();
    assert!(word.try_start(Status::Runnable));
    word.stop(Status::Parked);
    let held = word.hold(&scan_lock).expect("it stands still");
    word.ready();
    assert_eq!(word.get(), Status::Runnable);
    assert!(!word.try_start(Status::Runnable), "it is held still");
    drop(held);
    assert!(word.try_start(Status::Runnable));
}

#[test]
fn a_goroutine_that_is_started_returned_or_made_ready_twice_is_an_error() {
    for status in ALL {
        if status != Status::Parked {
            assert!(panics(|| StatusWord::new(status).ready()), "{status:?} is made ready");
        }
        for from in STILL.into_iter().filter(|from| *from != status) {
            let start = || assert!(StatusWord::new(status).try_start(from));
            assert!(panics(start), "{status:?} is started as {from:?}");
        }
    }
}
