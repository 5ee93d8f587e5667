//! Channels. A channel is a heap object; the goroutines that wait at it are in two queues that it
//! points to, outside of the heap.
//!
//! A waiting sender's element, and one handed to a waiting receiver, is in the goroutine's transfer
//! words, which the collector scans as roots. An element without references goes from the result
//! words of one goroutine to those of the other: while a goroutine is parked, no other has a use
//! for them. (Go copies from stack to stack.) That is not so in `select`, whose last part needs
//! result words for its own arguments.
//!
//! A channel may be collected while goroutines wait at it, if there is no reference to it: they
//! wait for ever, as in Go.

use super::arguments::{Arguments, natives};
use super::fail::RuntimeError;
use super::queue::{Queue, Waiting, Wake};
use super::typeinfo::TypeInfo;
use super::{alloc, host, panic};
use stackmark_asm::layout::G_RESULTS;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where, from the goroutine's header, an element that is sent or received lies.
pub(crate) const ELEMENT_OFFSET: usize = G_RESULTS + 8 * ELEMENT_WORD;

/// The result word in which an element that is sent or received begins.
const ELEMENT_WORD: usize = 1;

/// What `channel_send` returns: the element is sent, or the channel was closed.
const SENT: usize = 0;
const NOT_SENT: usize = 1;

/// What `channel_receive` returns with an element in the result words.
const RECEIVED: usize = 1;

/// What `channel_receive` returns to a goroutine that was parked; 1 more if an element was handed
/// to it.
pub(crate) const PARKED: usize = 2;

/// Most words of an element; larger ones are sent as pointers to copies.
pub(crate) const ELEMENT_WORDS: usize = 8;

#[repr(C)]
pub(super) struct Channel {
    /// Held for a few dozen instructions. Acquire and Release order the other fields.
    lock: AtomicBool,
    closed: bool,
    elem: &'static TypeInfo,
    cap: usize,
    len: usize,
    head: usize,
    /// The one reference: `cap` elements.
    buffer: usize,
    /// Waiting receivers or senders. There are never both, but for those of one `select`.
    pub(super) receivers: Queue,
    pub(super) senders: Queue,
}

/// What a send or a receive has come to.
pub(super) enum Outcome {
    /// Done. The caller wakes this goroutine once it holds no lock.
    Done(Option<Wake>),
    /// The channel is closed.
    Closed,
    /// It has to wait.
    Wait,
}

fn channel_info() -> &'static TypeInfo {
    static INFO: OnceLock<TypeInfo> = OnceLock::new();
    INFO.get_or_init(|| {
        let words = size_of::<Channel>() / 8;
        let refs = (0..words).map(|w| w == std::mem::offset_of!(Channel, buffer) / 8).collect();
        TypeInfo::new("channel".into(), size_of::<Channel>(), refs, false)
    })
}

/// # Safety
/// `at` is a channel.
pub(super) unsafe fn locked<'c>(at: usize) -> &'c mut Channel {
    let channel = at as *mut Channel;
    // SAFETY: the lock is a field of its own; the exclusive reference is made under it. A channel
    // that a native works on is not collected.
    unsafe {
        while (*channel).lock.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        &mut *channel
    }
}

impl Channel {
    pub(super) fn unlock(&self) {
        self.lock.store(false, Ordering::Release);
    }

    fn slot(&self, index: usize) -> usize {
        self.buffer + (self.head + index) % self.cap * self.elem.size
    }

    pub(super) fn words(&self) -> usize {
        self.elem.size.div_ceil(8)
    }

    /// Whether an element goes directly between a goroutine's result words and those of the one
    /// that waits.
    fn goes_directly(&self, waiting: &Waiting) -> bool {
        !self.elem.has_references() && waiting.select.is_none()
    }

    /// The element in the result words, padded with zeroes.
    fn take_element(&self, a: &Arguments<'_>) -> [usize; ELEMENT_WORDS] {
        let mut words = [0; ELEMENT_WORDS];
        // SAFETY: an element has at most ELEMENT_WORDS words, and as many result words follow the
        // first.
        unsafe {
            std::ptr::copy_nonoverlapping(a.element(), words.as_mut_ptr().cast(), self.elem.size)
        };
        self.shade(&words);
        words
    }

    /// Elements that are stored where the collector may have looked already.
    pub(super) fn shade(&self, words: &[usize]) {
        if host::reports_stores() {
            for (w, _) in self.elem.words.iter().enumerate().filter(|(_, is_ref)| **is_ref) {
                host::shade(words[w]);
            }
        }
    }

    /// An element that leaves the buffer.
    fn shade_lost(&self, element: *const u8) {
        if host::reports_stores() {
            for (w, _) in self.elem.words.iter().enumerate().filter(|(_, is_ref)| **is_ref) {
                // SAFETY: the caller's element has these words.
                host::shade_lost(unsafe { element.cast::<usize>().add(w).read() });
            }
        }
    }

    /// Whether a receive, or else a send, need not wait.
    pub(super) fn is_ready(&mut self, receive: bool) -> bool {
        self.closed
            || match receive {
                true => self.len > 0 || self.senders.has_waiting(),
                false => self.len < self.cap || self.receivers.has_waiting(),
            }
    }

    /// Sends an element; its references are shaded already. The lock is held.
    pub(super) fn send(&mut self, element: &[usize]) -> Outcome {
        if self.closed {
            return Outcome::Closed;
        }
        if let Some(receiver) = self.receivers.pop() {
            let element = &element[..self.words()];
            if self.goes_directly(&receiver) {
                let to = &receiver.waiter.results()[ELEMENT_WORD..];
                // Relaxed: making the goroutine ready publishes them.
                to.iter().zip(element).for_each(|(to, word)| {
                    to.store(*word as u64, Ordering::Relaxed);
                });
                return Outcome::Done(Some(Wake { waiting: receiver, plain: RECEIVED }));
            }
            receiver.waiter.set_transfer(element);
            return Outcome::Done(Some(Wake { waiting: receiver, plain: PARKED + 1 }));
        }
        if self.len < self.cap {
            self.put_buffered(element);
            return Outcome::Done(None);
        }
        Outcome::Wait
    }

    /// Receives an element into the result words. The lock is held.
    pub(super) fn receive(&mut self, a: &Arguments<'_>) -> Outcome {
        let (to, size) = (a.element(), self.elem.size);
        if self.len > 0 {
            // SAFETY: the slot holds an element; the result words have room for one.
            unsafe {
                let slot = self.slot(0);
                std::ptr::copy_nonoverlapping(slot as *const u8, to, size);
                self.shade_lost(to);
                std::ptr::write_bytes(slot as *mut u8, 0, size);
            }
            self.head = (self.head + 1) % self.cap;
            self.len -= 1;
            let sender = self.senders.pop();
            if let Some(s) = &sender {
                let words = self.element_of(s);
                self.shade(&words);
                self.put_buffered(&words);
            }
            return Outcome::Done(sender.map(|waiting| Wake { waiting, plain: SENT }));
        }
        if let Some(waiting) = self.senders.pop() {
            let words = self.element_of(&waiting);
            // SAFETY: these words hold one element; the result words have room for it.
            unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast::<u8>(), to, size) };
            return Outcome::Done(Some(Wake { waiting, plain: SENT }));
        }
        if self.closed {
            // SAFETY: the result words have room for an element.
            unsafe { std::ptr::write_bytes(to, 0, size) };
            return Outcome::Closed;
        }
        Outcome::Wait
    }

    /// The element of a sender that has left its queue.
    fn element_of(&self, sender: &Waiting) -> host::Words {
        if !self.goes_directly(sender) {
            return sender.element();
        }
        let words = &sender.waiter.results()[ELEMENT_WORD..][..self.words()];
        // Relaxed: the sender has stored them before it came into the queue, under the lock.
        words.iter().map(|word| word.load(Ordering::Relaxed) as usize).collect()
    }

    fn put_buffered(&mut self, words: &[usize]) {
        let to = self.slot(self.len);
        // SAFETY: the slot is in the buffer, the words hold one element.
        unsafe {
            std::ptr::copy_nonoverlapping(
                words.as_ptr().cast::<u8>(),
                to as *mut u8,
                self.elem.size,
            )
        };
        self.len += 1;
    }
}

/// Waits at a nil channel: the goroutine is never woken.
fn forever(what: host::Wait) -> usize {
    host::park(what, |_| {})
}

natives! {
    /// (element type, capacity) -> a channel.
    fn channel_make(a) {
        let (elem, cap) = (a.info(0), a.get(1));
        debug_assert!(elem.size <= 8 * ELEMENT_WORDS);
        let at = alloc::array(channel_info(), 1);
        let buffer = alloc::array(elem, cap);
        if host::reports_stores() {
            host::shade(buffer);
        }
        let new = Channel {
            lock: AtomicBool::new(false),
            closed: false,
            elem,
            cap,
            len: 0,
            head: 0,
            buffer,
            receivers: Queue::default(),
            senders: Queue::default(),
        };
        // SAFETY: a new object of this very size.
        unsafe { (at as *mut Channel).write(new) };
        at
    }

    /// (channel); the element is in the result words from the second on. -> 1 if the channel was
    /// closed meanwhile.
    fn channel_send(a) {
        if a.get(0) == 0 {
            return forever(host::Wait::SendNil);
        }
        // SAFETY: compiled code passes a channel.
        let c = unsafe { locked(a.get(0)) };
        let element = c.take_element(&a);
        match c.send(&element) {
            Outcome::Done(receiver) => {
                c.unlock();
                if let Some(receiver) = receiver {
                    receiver.wake();
                }
                SENT
            }
            Outcome::Closed => {
                c.unlock();
                NOT_SENT
            }
            Outcome::Wait => {
                if c.elem.has_references() {
                    host::set_transfer(&element[..c.words()]);
                }
                host::park(host::Wait::Send, move |me| {
                    c.senders.push(Waiting::plain(me));
                    c.unlock();
                })
            }
        }
    }

    /// (channel) -> 1 with an element in the result words, 0 with zeroes there, or PARKED and more.
    fn channel_receive(a) {
        if a.get(0) == 0 {
            return forever(host::Wait::ReceiveNil);
        }
        // SAFETY: compiled code passes a channel.
        let c = unsafe { locked(a.get(0)) };
        match c.receive(&a) {
            Outcome::Done(sender) => {
                c.unlock();
                if let Some(sender) = sender {
                    sender.wake();
                }
                RECEIVED
            }
            Outcome::Closed => {
                c.unlock();
                0
            }
            Outcome::Wait => host::park(host::Wait::Receive, move |me| {
                c.receivers.push(Waiting::plain(me));
                c.unlock();
            }),
        }
    }

    /// (status of a receive that was parked) -> whether an element was handed over; it is in the
    /// result words.
    fn channel_fetch(a) {
        let words = host::Waiter::current().take_transfer();
        for i in 0..ELEMENT_WORDS {
            a.set(1 + i, words.get(i).copied().unwrap_or(0));
        }
        a.get(0) - PARKED
    }

    /// (channel): closes it.
    fn channel_close(a) {
        if a.get(0) == 0 {
            panic::raise(RuntimeError::plain("close of nil channel"));
        }
        // SAFETY: compiled code passes a channel.
        let c = unsafe { locked(a.get(0)) };
        if c.closed {
            panic::raise(RuntimeError::plain("close of closed channel"));
        }
        c.closed = true;
        let mut receivers = vec![];
        let mut senders = vec![];
        while let Some(w) = c.receivers.pop() {
            receivers.push(w);
        }
        while let Some(w) = c.senders.pop() {
            senders.push(w);
        }
        c.unlock();
        for r in receivers {
            r.waiter.set_transfer(&[]);
            r.wake(PARKED, false);
        }
        for s in senders {
            s.waiter.set_transfer(&[]);
            s.wake(NOT_SENT, false);
        }
        0
    }

    /// (channel, 0 or 1) -> its length or capacity.
    fn channel_length(a) {
        if a.get(0) == 0 {
            return 0;
        }
        // SAFETY: compiled code passes a channel.
        let c = unsafe { locked(a.get(0)) };
        let n = if a.get(1) == 0 { c.len } else { c.cap };
        c.unlock();
        n
    }
}
