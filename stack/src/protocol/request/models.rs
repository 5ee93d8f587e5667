//! Models of requests and the poll word.

use super::*;
use crate::protocol::sync::{AtomicUsize, leave_out};
use loom::{cell::UnsafeCell, sync::Arc, thread};

impl PollWord for AtomicUsize {
    fn load(&self, order: Ordering) -> usize {
        AtomicUsize::load(self, order)
    }

    fn store(&self, word: usize, order: Ordering) {
        AtomicUsize::store(self, word, order);
    }
}

fn a_request_comes_while_the_word_is_rewritten() {
    loom::model(|| {
        let shared = Arc::new((Requests::new(), AtomicUsize::new(0)));
        let goroutine = shared.clone();
        // Its stack grows, and it polls.
        let thread = thread::spawn(move || {
            let (requests, word) = &*goroutine;
            requests.rewrite(word, 1);
            let taken = requests.take();
            requests.rewrite(word, 2);
            taken.has(Request::SCAN)
        });
        // A waiter asks in this order: a hint, then a fenced request.
        shared.0.ask(Request::SCAN, Signal::Hint, &shared.1);
        shared.0.ask(Request::SCAN, Signal::Fenced, &shared.1);
        let taken = thread.join().unwrap();
        let word = shared.1.load(Ordering::Relaxed);
        assert!(taken || word == usize::MAX, "the request is neither taken nor visible");
    });
}

#[test]
fn loom_no_request_is_lost_while_the_word_is_rewritten() {
    a_request_comes_while_the_word_is_rewritten();
}

/// What the asker writes before it asks, the goroutine that takes the request reads.
#[test]
fn loom_a_taken_request_shows_what_the_asker_wrote() {
    // It needs none of the fences, which are full ones only in models.
    leave_out(LeftOut::RequestFence);
    for signals in [&[Signal::Hint][..], &[Signal::Fenced], &[Signal::Hint, Signal::Fenced]] {
        loom::model(move || {
            let shared = Arc::new((Requests::new(), AtomicUsize::new(0)));
            let wanted = Arc::new(UnsafeCell::new(0));
            let (goroutine, scan) = (shared.clone(), wanted.clone());
            let thread = thread::spawn(move || {
                let (requests, word) = &*goroutine;
                let taken = requests.take();
                requests.rewrite(word, 1);
                if taken.has(Request::SCAN) {
                    // SAFETY: loom checks that no thread writes.
                    scan.with(|scan| unsafe { assert_eq!(*scan, 1) });
                }
            });
            // SAFETY: loom checks that no other thread is there.
            wanted.with_mut(|wanted| unsafe { *wanted = 1 });
            for signal in signals {
                shared.0.ask(Request::SCAN, *signal, &shared.1);
            }
            thread.join().unwrap();
        });
    }
}

#[test]
fn loom_no_request_is_lost_when_two_ask_for_the_same() {
    loom::model(|| {
        let shared = Arc::new((Requests::new(), AtomicUsize::new(0)));
        let [goroutine, other] = [shared.clone(), shared.clone()];
        let runs = thread::spawn(move || {
            let (requests, word) = &*goroutine;
            let taken = requests.take();
            requests.rewrite(word, 1);
            taken.has(Request::SCAN)
        });
        let asks = thread::spawn(move || other.0.ask(Request::SCAN, Signal::Fenced, &other.1));
        shared.0.ask(Request::SCAN, Signal::Fenced, &shared.1);
        let taken = runs.join().unwrap();
        asks.join().unwrap();
        let word = shared.1.load(Ordering::Relaxed);
        assert!(taken || word == usize::MAX, "the request is neither taken nor visible");
    });
}

/// Two goroutines are asked with one fence.
fn all_are_asked_while_their_words_are_rewritten() {
    loom::model(|| {
        let new = || Arc::new((Requests::new(), AtomicUsize::new(0)));
        let shared = [new(), new()];
        let threads = shared.clone().map(|goroutine| {
            thread::spawn(move || {
                let (requests, word) = &*goroutine;
                requests.rewrite(word, 1);
            })
        });
        let all = shared.iter().map(|goroutine| (&goroutine.0, &goroutine.1));
        ask_all(Request::YIELD, all);
        for thread in threads {
            thread.join().unwrap();
        }
        for goroutine in shared {
            let word = goroutine.1.load(Ordering::Relaxed);
            assert_eq!(word, usize::MAX, "the request is not visible");
            assert!(goroutine.0.take().has(Request::YIELD));
        }
    });
}

#[test]
fn loom_all_that_are_asked_see_it_though_their_words_are_rewritten() {
    all_are_asked_while_their_words_are_rewritten();
}

#[test]
#[should_panic(expected = "the request is not visible")]
fn loom_twin_without_a_fence_one_of_all_does_not_see_it() {
    leave_out(LeftOut::RequestFence);
    all_are_asked_while_their_words_are_rewritten();
}

#[test]
#[should_panic]
fn loom_twin_without_fences_loses_a_request() {
    leave_out(LeftOut::RequestFence);
    a_request_comes_while_the_word_is_rewritten();
}
