//! What the flags and the poll word say, one step after another.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;

const QUIET: usize = 100;
const KINDS: [Request; 3] = [Request::SAFEPOINT, Request::SCAN, Request::YIELD];

#[derive(Clone, Debug)]
enum Step {
    Ask(u32, Signal),
    /// The goroutine polls.
    Take,
    /// Its stack moves.
    Rewrite,
    /// It ends, and the record begins another life.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let signal = prop_oneof![Just(Signal::Hint), Just(Signal::Fenced)];
    prop_oneof![
        4 => (1..8u32, signal).prop_map(|(what, signal)| Step::Ask(what, signal)),
        2 => Just(Step::Take),
        2 => Just(Step::Rewrite),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    /// Invariant 1, and that the goroutine takes what was asked since it took the last time.
    #[test]
    fn the_word_says_whether_something_is_asked(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (requests, word) = (Requests::new(), AtomicUsize::new(QUIET));
        let mut asked = 0;
        for step in steps {
            match step {
                Step::Ask(what, signal) => {
                    requests.ask(Request(what), signal, &word);
                    asked |= what;
                }
                Step::Take => {
                    prop_assert_eq!(requests.take(), Request(std::mem::take(&mut asked)));
                    requests.rewrite(&word, QUIET);
                }
                Step::Rewrite => requests.rewrite(&word, QUIET),
                Step::Forget => {
                    requests.forget();
                    asked = 0;
                    requests.rewrite(&word, QUIET);
                }
            }
            prop_assert_eq!(requests.any(), asked != 0);
            let wanted = if asked == 0 { QUIET } else { usize::MAX };
            prop_assert_eq!(word.load(Ordering::Relaxed), wanted);
        }
    }
}

/// A second fence would tell the goroutine nothing: the first asker stores the word.
#[test]
fn a_fenced_request_is_sent_once_until_it_is_taken() {
    for what in KINDS {
        let (requests, word) = (Requests::new(), AtomicUsize::new(QUIET));
        let sends = |what| {
            word.store(QUIET, Ordering::Relaxed);
            requests.ask(what, Signal::Fenced, &word);
            word.load(Ordering::Relaxed) == usize::MAX
        };
        // A hint has no fence, so it does not stand for a fenced request.
        requests.ask(what, Signal::Hint, &word);
        assert!(sends(what) && !sends(what));
        for other in KINDS.into_iter().filter(|other| *other != what) {
            assert!(sends(Request(what.0 | other.0)), "{other:?} is asked besides {what:?}");
            assert!(!sends(other) && !sends(what));
            requests.take();
            assert!(sends(what));
        }
    }
}

/// Those that were asked, and have not taken it, are left alone.
#[test]
fn all_goroutines_are_asked_that_were_not_before() {
    for before in KINDS {
        let [asked, hinted, other] = [(); 3].map(|()| (Requests::new(), AtomicUsize::new(QUIET)));
        asked.0.ask(before, Signal::Fenced, &asked.1);
        hinted.0.ask(before, Signal::Hint, &hinted.1);
        let all = [&asked, &hinted, &other];
        all.iter().for_each(|(_, word)| word.store(QUIET, Ordering::Relaxed));
        ask_all(before, all.iter().map(|(requests, word)| (requests, word)));
        let words = all.map(|(_, word)| word.load(Ordering::Relaxed));
        assert_eq!(words, [QUIET, usize::MAX, usize::MAX]);
        assert!(all.iter().all(|(requests, _)| requests.take() == before));
    }
}

#[test]
fn a_request_has_another_if_it_has_all_of_it() {
    for (all, part) in (0..8).flat_map(|all| (0..8).map(move |part| (all, part))) {
        let has = (0..3).all(|bit| part >> bit & 1 <= all >> bit & 1);
        assert_eq!(Request(all).has(Request(part)), has, "{part} of {all}");
    }
    assert!(KINDS.iter().all(|what| !Request::NONE.has(*what) && what.has(Request::NONE)));
}
