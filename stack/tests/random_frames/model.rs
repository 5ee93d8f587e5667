//! What the frames hold, as plain data, and what the input asks for next.

use crate::code::{LAYOUTS, action};

/// The words that frames hold are above this.
const FIRST_WORD: usize = 0x1000;

/// A frame of managed code.
#[derive(Debug)]
pub(crate) struct Frame {
    layout: usize,
    /// The references, then the word in the array, then those in registers.
    held: Vec<usize>,
    /// Whether it has run since the last first scan of the stack.
    touched: bool,
}

/// What native code does before managed code goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    None,
    /// Begins a cycle, or ends the one that is under way.
    Cycle,
    /// Calls back into managed code.
    Callback,
    /// Throws what the youngest native code catches that has called back.
    Throw,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Model {
    input: Vec<u8>,
    /// Frames that may be alive at once.
    deepest: usize,
    at: usize,
    frames: Vec<Frame>,
    /// Calls still to be made in a row, and of which layout.
    calls: (usize, usize),
    /// Returns still to be made in a row.
    returns: usize,
    /// Callbacks under way: how many frames there were before.
    callbacks: Vec<usize>,
    next_word: usize,
    /// What the last frame returned.
    returned: Option<usize>,
}

impl Model {
    pub(crate) fn new(input: &[u8], deepest: usize) -> Model {
        Model {
            input: input.to_vec(),
            deepest,
            at: 0,
            frames: Vec::new(),
            calls: (0, 0),
            returns: 0,
            callbacks: Vec::new(),
            next_word: 0,
            returned: None,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.input.get(self.at).copied();
        self.at += 1;
        byte
    }

    /// A word that no other frame holds and that is no address.
    fn word(&mut self) -> usize {
        self.next_word += size_of::<usize>();
        // Far below all memory that is mapped.
        FIRST_WORD + self.next_word
    }

    /// A frame begins.
    pub(crate) fn begin(&mut self, layout: usize) {
        self.frames.push(Frame { layout, held: Vec::new(), touched: true });
    }

    /// The innermost frame holds a new word at an index from now on.
    pub(crate) fn fresh(&mut self, layout: usize, index: usize) -> usize {
        let word = self.word();
        let frame = self.frames.last_mut().expect("a frame has begun");
        assert_eq!(frame.layout, layout);
        match frame.held.get_mut(index) {
            Some(held) => *held = word,
            None => {
                assert_eq!(frame.held.len(), index);
                frame.held.push(word);
            }
        }
        word
    }

    /// The innermost frame shows what it holds.
    pub(crate) fn check(&mut self, word: usize, index: usize) {
        let frame = self.frames.last().expect("a frame runs");
        let wanted = match frame.held.get(index) {
            Some(&held) => held,
            None => self.returned.take().expect("a callee has returned"),
        };
        assert_eq!(word, wanted, "index {index} of frame {} {frame:?}", self.frames.len());
    }

    /// The innermost frame ends; what it returns.
    pub(crate) fn leave(&mut self) -> usize {
        self.frames.pop().expect("a frame runs");
        if let Some(caller) = self.frames.last_mut() {
            caller.touched = true;
        }
        let word = self.word();
        self.returned = Some(word);
        word
    }

    /// A callback has ended with this result.
    pub(crate) fn callback_returned(&mut self, result: usize) {
        assert_eq!(self.returned.take(), Some(result));
        self.callbacks.pop();
    }

    /// An exception has left the youngest callback, and all of its frames. Returns the references
    /// that they held.
    pub(crate) fn callback_left(&mut self) -> Vec<usize> {
        let frames = self.callbacks.pop().expect("a callback is under way");
        let references = self.references_of_youngest(self.frames.len() - frames);
        self.frames.truncate(frames);
        self.frames.last_mut().expect("the frame that called out").touched = true;
        (self.calls, self.returns) = ((0, 0), 0);
        references
    }

    /// What happens next: an event, and then the action of managed code. The oldest frame stays
    /// while there is input.
    pub(crate) fn next(&mut self) -> (Event, usize) {
        match self.choose() {
            (event, action::RETURN) if self.frames.len() == 1 && self.at < self.input.len() => {
                self.returns = 0;
                (event, action::NOTHING)
            }
            chosen => chosen,
        }
    }

    fn choose(&mut self) -> (Event, usize) {
        let full = self.frames.len() >= self.deepest;
        if self.calls.0 > 0 && !full {
            self.calls.0 -= 1;
            return (Event::None, action::CALL + self.calls.1);
        }
        self.calls = (0, 0);
        if self.returns > 0 {
            self.returns -= 1;
            return (Event::None, action::RETURN);
        }
        let Some(byte) = self.byte() else { return (Event::None, action::RETURN) };
        let argument = usize::from(byte >> 3);
        match byte & 7 {
            0 | 1 if !full => (Event::None, action::CALL + argument % LAYOUTS.len()),
            2 if !full => {
                let count = usize::from(self.byte().unwrap_or(0) % 64);
                self.calls = (count, argument % LAYOUTS.len());
                (Event::None, action::NOTHING)
            }
            3 => {
                self.returns = argument;
                (Event::None, action::RETURN)
            }
            4 => (Event::Cycle, action::NOTHING),
            5 if argument & 3 == 3 => (Event::None, action::YIELD),
            5 => (Event::None, action::POLL),
            6 => (Event::None, action::REPLACE),
            7 if !self.callbacks.is_empty() && argument % 4 == 3 => (Event::Throw, action::NOTHING),
            7 if !full && self.callbacks.len() < 8 => {
                self.callbacks.push(self.frames.len());
                (Event::Callback, action::NOTHING)
            }
            _ => (Event::None, action::RETURN),
        }
    }

    /// How many frames there are.
    pub(crate) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// The references of the youngest `count` frames, sorted.
    pub(crate) fn references_of_youngest(&self, count: usize) -> Vec<usize> {
        let youngest = &self.frames[self.frames.len() - count..];
        let mut words: Vec<usize> = youngest
            .iter()
            .flat_map(|frame| &frame.held[..LAYOUTS[frame.layout].references])
            .copied()
            .collect();
        words.sort_unstable();
        words
    }

    /// How many of the youngest frames have run since the stack was scanned.
    pub(crate) fn touched(&self) -> usize {
        let untouched = self.frames.iter().take_while(|frame| !frame.touched).count();
        self.frames.len() - untouched
    }

    /// The stack has been scanned; the innermost frame runs on.
    pub(crate) fn scanned(&mut self) {
        for frame in &mut self.frames {
            frame.touched = false;
        }
        self.frames.last_mut().expect("a frame runs").touched = true;
    }
}
