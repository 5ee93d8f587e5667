//! What a walk gives away of the roots that it finds: their words, or their places.

use crate::goroutine::Goroutine;
use crate::word::Word;
use arrayvec::ArrayVec;
use stackmark_unwind::SafepointRef;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The place of a root, for a collector that moves objects. The addresses are those of words of
/// eight bytes' alignment, and hold until the world goes on; until then their taker may write
/// there. In one scan no place is the `derived` one of two roots. A `base` may be the base of
/// several, and then is a root of its own, too, or not used again before the objects are moved.
///
/// The idea of roots as pairs is LLVM's: see its documentation of statepoints, "Base pointers".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RootSlot {
    /// A reference. The word at `derived` is the reference at `base`, or a pointer derived from it,
    /// which keeps its distance when the object moves. For a plain reference both are the same
    /// place.
    Reference {
        /// The address of the word that refers to the object.
        base: usize,
        /// The address of the word that is derived from it.
        derived: usize,
    },
    /// The address of a word that may be a reference, an integer, or an address outside the heap:
    /// an object that it refers to stays where it is.
    Ambiguous(usize),
}

/// What a word of `language` in a goroutine's header is.
pub(crate) type Language = fn(usize) -> Word;

/// The taker of a scan's roots. It gets many roots in one call.
pub(crate) type To<'r, R> = &'r dyn Fn(&[R]);

/// A root in the form that a walk's taker wants: a word (`usize`) or a [`RootSlot`].
pub(crate) trait Root: Copy {
    /// Gives the roots of a frame to `to`, which stands at a safepoint with this stack pointer and
    /// frame pointer. A pointer into the stack itself is none: moves rewrite it.
    ///
    /// # Safety
    /// The frame lies within the stack, and other threads change it by atomic stores alone.
    unsafe fn of_frame(
        safepoint: SafepointRef<'_>,
        pointers: (usize, usize),
        stack: &Range<usize>,
        to: &mut RootBuffer<'_, Self>,
    );

    /// Gives a word that may be a reference to `to`. 0 and pointers into the stack are none.
    ///
    /// # Safety
    /// The word at `at` is readable; other threads change it by atomic stores alone.
    unsafe fn ambiguous(at: usize, stack: &Range<usize>, to: &mut RootBuffer<'_, Self>);

    /// Gives the words that a goroutine has outside of its frames to `to`. `language`: what the
    /// embedder's own words are.
    fn of_goroutine(goroutine: &Goroutine, language: Language, to: &mut RootBuffer<'_, Self>);
}

/// Gathers the roots of a scan for their taker. Large: it is made once for a scan, and not moved.
pub(crate) struct RootBuffer<'r, R: Root> {
    to: To<'r, R>,
    roots: ArrayVec<R, 256>,
}

impl<'r, R: Root> RootBuffer<'r, R> {
    pub(crate) fn new(to: To<'r, R>) -> Self {
        RootBuffer { to, roots: ArrayVec::new_const() }
    }

    #[inline]
    fn push(&mut self, root: R) {
        self.roots.push(root);
        if self.roots.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        (self.to)(&self.roots);
        self.roots.clear();
    }
}

impl<R: Root> Drop for RootBuffer<'_, R> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Reads the word at `at`.
///
/// # Safety
/// The word is readable; other threads change it by atomic stores alone.
#[inline]
unsafe fn load(at: usize) -> usize {
    // Relaxed: the goroutine may store there through a pointer while a worker reads. The write
    // barrier shades what the load misses, and a reference is shaded before it is stored.
    // SAFETY: our contract.
    unsafe { AtomicUsize::from_ptr(at as *mut usize) }.load(Ordering::Relaxed)
}

impl Root for usize {
    // Always: it is the body of the loop over frames.
    #[inline(always)]
    unsafe fn of_frame(
        safepoint: SafepointRef<'_>,
        (sp, fp): (usize, usize),
        stack: &Range<usize>,
        to: &mut RootBuffer<'_, usize>,
    ) {
        safepoint.slots_at(sp, fp).for_each(|slot| {
            // SAFETY: the frame lies within the stack by our contract, and registration has checked
            // that the slots of a safepoint lie within its frame.
            unsafe { usize::ambiguous(slot, stack, to) };
        });
    }

    #[inline]
    unsafe fn ambiguous(at: usize, stack: &Range<usize>, to: &mut RootBuffer<'_, usize>) {
        // SAFETY: our contract.
        let word = unsafe { load(at) };
        if word != 0 && !stack.contains(&word) {
            to.push(word);
        }
    }

    fn of_goroutine(goroutine: &Goroutine, _: Language, to: &mut RootBuffer<'_, usize>) {
        let own = [&goroutine.header.start_arg, &goroutine.header.resume_value];
        // The embedder's words too: its native code may read a list of which no frame holds the
        // head.
        let own = own.into_iter().chain(&goroutine.header.language);
        let own = own.map(|word| word.load(Ordering::Relaxed)).filter(|&word| word != 0);
        own.for_each(|word| to.push(word));
        goroutine.with_transfer(|words| {
            let words = words.iter().map(|word| word.bits()).filter(|&word| word != 0);
            words.for_each(|word| to.push(word));
        });
    }
}

impl Root for RootSlot {
    #[inline]
    unsafe fn of_frame(
        safepoint: SafepointRef<'_>,
        (sp, fp): (usize, usize),
        stack: &Range<usize>,
        to: &mut RootBuffer<'_, RootSlot>,
    ) {
        safepoint.roots_at(sp, fp).for_each(|(base, derived)| {
            // SAFETY: as for words.
            let word = unsafe { load(base) };
            if word != 0 && !stack.contains(&word) {
                to.push(RootSlot::Reference { base, derived });
            }
        });
    }

    unsafe fn ambiguous(at: usize, stack: &Range<usize>, to: &mut RootBuffer<'_, RootSlot>) {
        // SAFETY: our contract.
        let word = unsafe { load(at) };
        if word != 0 && !stack.contains(&word) {
            to.push(RootSlot::Ambiguous(at));
        }
    }

    fn of_goroutine(goroutine: &Goroutine, language: Language, to: &mut RootBuffer<'_, RootSlot>) {
        let slot = |word: Word, at: *const usize| {
            let at = at as usize;
            match word {
                Word::Plain(_) | Word::Reference(0) | Word::Ambiguous(0) => None,
                Word::Reference(_) => Some(RootSlot::Reference { base: at, derived: at }),
                Word::Ambiguous(_) => Some(RootSlot::Ambiguous(at)),
            }
        };
        let handed = [
            (goroutine.argument(), goroutine.header.start_arg.as_ptr()),
            (goroutine.resume_value(), goroutine.header.resume_value.as_ptr()),
        ];
        let own = goroutine.header.language.iter();
        let own = own.map(|word| (language(word.load(Ordering::Relaxed)), word.as_ptr()));
        for (word, at) in handed.into_iter().chain(own) {
            slot(word, at).into_iter().for_each(|slot| to.push(slot));
        }
        goroutine.with_transfer(|words| {
            for word in words {
                let kept = *word;
                let (Word::Plain(bits) | Word::Reference(bits) | Word::Ambiguous(bits)) = word;
                slot(kept, bits).into_iter().for_each(|slot| to.push(slot));
            }
        });
    }
}
