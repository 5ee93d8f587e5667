//! The goroutines that wait at a channel, first come, first served.
//!
//! A goroutine in `select` waits at several channels. The first partner to claim it wakes it; then
//! it leaves the queues of the other channels. To leave a queue takes as long as to find a number
//! in it, however many wait there: the place becomes empty, and empty places go in bulk.

use super::host::{self, Words};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The value that wakes a goroutine in `select`; more by twice the case, and by 1 if an element was
/// handed over.
pub(crate) const SELECTED: usize = 1 << 32;

/// A goroutine that waits for one channel, or with `select` for this and others.
pub(super) struct Waiting {
    pub(super) waiter: host::Waiter,
    /// Boxed, since most wait for one channel, and a place in a queue is moved in registers then.
    pub(super) select: Option<Box<Case>>,
}

/// One case of a select statement.
pub(super) struct Case {
    /// Set by the goroutine that wakes this one: the first to set it wins. AcqRel, although the
    /// channels' locks order the rest.
    pub(super) claimed: Arc<AtomicBool>,
    pub(super) index: usize,
    /// Where among the goroutine's transfer words the element lies that it sends.
    pub(super) element: Range<usize>,
}

impl Waiting {
    pub(super) fn plain(waiter: host::Waiter) -> Waiting {
        Waiting { waiter, select: None }
    }

    fn is_open(&self) -> bool {
        self.select.as_ref().is_none_or(|case| !case.claimed.load(Ordering::Acquire))
    }

    fn claim(&self) -> bool {
        self.select.as_ref().is_none_or(|case| !case.claimed.swap(true, Ordering::AcqRel))
    }

    /// The element of a sender.
    pub(super) fn element(&self) -> Words {
        let words = self.waiter.take_transfer();
        match &self.select {
            Some(case) => Words::from_slice(&words[case.element.clone()]),
            None => words,
        }
    }

    /// Wakes it with the value of a goroutine that waits for one channel, or with that of its case.
    pub(super) fn wake(self, plain: usize, handed_over: bool) {
        let value = match &self.select {
            Some(case) => SELECTED + 2 * case.index + usize::from(handed_over),
            None => plain,
        };
        self.waiter.wake(value);
    }
}

/// Most places of a queue whose memory is kept.
const MOST_SPARE: usize = 256;

thread_local! {
    /// The memory of a queue that has become empty. At a channel that hands over one element at a
    /// time, a queue fills and empties with each: it takes no memory for that.
    static SPARE: Spare = const { Cell::new(None) };
}

type Spare = Cell<Option<Box<Places<Waiting>>>>;

/// Calls `f` with this thread's spare memory. `None` at the end of a thread, which may call in once
/// more when it has no such memory any more.
fn spare(f: impl FnOnce(&Spare) -> Option<Box<Places<Waiting>>>) -> Option<Box<Places<Waiting>>> {
    SPARE.try_with(f).ok().flatten()
}

/// A goroutine that has left its queue, to be woken.
pub(super) struct Wake {
    pub(super) waiting: Waiting,
    /// What its call returns if it has waited for one channel.
    pub(super) plain: usize,
}

impl Wake {
    pub(super) fn wake(self) {
        self.waiting.wake(self.plain, true);
    }
}

/// One queue of a channel; null when it is empty, since the channel has no finaliser.
#[allow(clippy::box_collection, reason = "one word in the channel")]
#[repr(transparent)]
#[derive(Default)]
pub(super) struct Queue(Option<Box<Places<Waiting>>>);

impl Queue {
    /// Puts a goroutine at the end. Returns the number of its place.
    pub(super) fn push(&mut self, w: Waiting) -> u64 {
        self.0.get_or_insert_with(|| spare(Cell::take).unwrap_or_default()).push(w)
    }

    /// The first goroutine that is not woken yet.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let places = self.0.as_mut()?;
        let first = std::iter::from_fn(|| places.pop()).find(Waiting::claim);
        self.drop_if_empty();
        first
    }

    /// Whether a goroutine waits that is not woken yet. Those in front of it that are leave.
    pub(super) fn has_waiting(&mut self) -> bool {
        let Some(places) = self.0.as_mut() else { return false };
        while places.first().is_some_and(|w| !w.is_open()) {
            places.pop();
        }
        self.drop_if_empty();
        self.0.is_some()
    }

    /// Takes a goroutine out of its place, if it is there: the queue may have been emptied since.
    pub(super) fn remove(&mut self, place: u64, waiter: &host::Waiter) {
        if let Some(places) = self.0.as_mut() {
            places.remove(place, |w| w.waiter.is(waiter));
            self.drop_if_empty();
        }
    }

    fn drop_if_empty(&mut self) {
        if let Some(places) = self.0.take_if(|places| places.is_empty())
            && places.list.capacity() <= MOST_SPARE
        {
            spare(|spare| spare.replace(Some(places)));
        }
    }
}

/// Numbered places in ascending order. The first is never empty.
struct Places<T> {
    list: VecDeque<(u64, Option<T>)>,
    next: u64,
    empty: usize,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { list: VecDeque::new(), next: 0, empty: 0 }
    }
}

impl<T> Places<T> {
    fn push(&mut self, value: T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.list.push_back((number, Some(value)));
        number
    }

    fn first(&self) -> Option<&T> {
        self.list.front()?.1.as_ref()
    }

    fn pop(&mut self) -> Option<T> {
        let first = self.list.pop_front()?.1;
        self.skip_empty();
        first
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn remove(&mut self, number: u64, is_it: impl FnOnce(&T) -> bool) {
        let Ok(at) = self.list.binary_search_by_key(&number, |place| place.0) else { return };
        if !self.list[at].1.as_ref().is_some_and(is_it) {
            return;
        }
        self.list[at].1 = None;
        self.empty += 1;
        self.skip_empty();
    }

    /// Removes the empty places in front, and all of them where they are more than the others: as
    /// many then as have become empty since the last time.
    fn skip_empty(&mut self) {
        if 2 * self.empty > self.list.len() {
            self.list.retain(|place| place.1.is_some());
            self.empty = 0;
        }
        while self.list.front().is_some_and(|place| place.1.is_none()) {
            self.list.pop_front();
            self.empty -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    /// Against a plain list: a generator of numbers decides who comes, goes and is served.
    #[test]
    fn places_are_served_in_their_order_whichever_leave() {
        let (mut places, mut plain) = (Places::default(), Vec::<(u64, u64)>::new());
        let mut random = 1u64;
        for value in 0..20_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let choice = random >> 33;
            match choice % 5 {
                0 | 1 => plain.push((places.push(value), value)),
                2 => {
                    let first = (!plain.is_empty()).then(|| plain.remove(0).1);
                    assert_eq!(places.pop(), first);
                }
                3 if !plain.is_empty() => {
                    let (place, value) = plain.remove(choice as usize / 5 % plain.len());
                    places.remove(place, |v| *v == value);
                }
                _ => places.remove(choice / 5 % (value + 1), |v| *v == u64::MAX),
            }
            assert_eq!(places.first(), plain.first().map(|(_, value)| value));
            assert_eq!(places.is_empty(), plain.is_empty());
            assert!(places.list.len() <= 2 * plain.len() + 1, "empty places go");
        }
    }
}
