//! What C owns: a pointer that was given back, or that is of another kind, is told from a good one.
//!
//! Each object lies in a place of its kind. The memory of places is never returned to the system,
//! so that the word in front of a place can be read after the object is gone. A place is used again
//! only when many others have been given back after it.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stackmark::stack::alarm;

use crate::abi::Failure;

/// A type of the header that C owns objects of.
pub(crate) trait Kind: Sized + 'static {
    /// Its name in the header.
    const NAME: &'static str;

    fn pool() -> &'static Pool;
}

/// Says which type of the header a type is.
macro_rules! kind {
    ($type:ty = $name:literal) => {
        impl $crate::object::Kind for $type {
            const NAME: &'static str = $name;

            fn pool() -> &'static $crate::object::Pool {
                static POOL: $crate::object::Pool = $crate::object::Pool::new();
                &POOL
            }
        }
    };
}
pub(crate) use kind;

/// The free places of one kind, by the order in which they were given back.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<VecDeque<usize>>);

/// So many places are given back before one of them is used again.
const RESTS: usize = 256;

impl Pool {
    pub(crate) const fn new() -> Pool {
        Pool(Mutex::new(VecDeque::new()))
    }
}

#[repr(C, align(16))]
struct Place<T> {
    /// [`Place::LIVE`] as long as there is an object. It orders nothing: C sees to it that an
    /// object is given back after its last use. Relaxed.
    state: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T: Kind> Place<T> {
    /// Another word for each kind (FNV-1a).
    const LIVE: u64 = {
        let (name, mut hash, mut i) = (T::NAME.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
        while i < name.len() {
            hash = (hash ^ name[i] as u64).wrapping_mul(0x100_0000_01b3);
            i += 1;
        }
        hash | 1
    };
    const GONE: u64 = 0;
}

/// An object that C passes and goes on to own.
#[repr(transparent)]
pub(crate) struct Ref<T>(*const Place<T>);

/// An object that C gets, or gives back.
#[repr(transparent)]
pub(crate) struct Owned<T>(*const Place<T>, PhantomData<T>);

/// Whether there is an object of this kind.
fn is_live<T: Kind>(place: *const Place<T>) -> bool {
    // SAFETY: the header asks for a pointer that the library has given for some object. There is a
    // word at it, which is readable for ever if the object was of a kind that C owns.
    place.is_aligned() && unsafe { (*place).state.load(Ordering::Relaxed) } == Place::<T>::LIVE
}

impl<T: Kind> Ref<T> {
    /// The object, for the argument `name`.
    pub(crate) fn given(&self, name: &str) -> Result<&'static T, Failure> {
        // The child of a fork has no thread that would do what it asks for.
        alarm::check();
        if self.0.is_null() {
            return Err(Failure::invalid(format_args!("{name} is NULL")));
        }
        self.live().ok_or_else(|| Failure::invalid(wrong::<T>(name)))
    }

    /// As [`Ref::given`]; `None` for NULL. For functions that have no way to fail: the process ends
    /// with one line.
    pub(crate) fn get(&self, name: &str) -> Option<&'static T> {
        (!self.0.is_null()).then(|| self.live().unwrap_or_else(|| panic!("{}", wrong::<T>(name))))
    }

    /// As [`Ref::get`], but NULL ends the process, too.
    pub(crate) fn needed(&self, name: &str) -> &'static T {
        self.get(name).unwrap_or_else(|| panic!("{name} is NULL"))
    }

    fn live(&self) -> Option<&'static T> {
        // SAFETY: a live place has a value, which stays until it is given back. The header says
        // that this is not before its last use.
        is_live(self.0).then(|| unsafe { (*(*self.0).value.get()).assume_init_ref() })
    }
}

impl<T: Kind> Owned<T> {
    /// C is to own the object.
    pub(crate) fn new(value: T) -> Owned<T> {
        let free = {
            let mut free = T::pool().0.lock();
            (free.len() > RESTS).then(|| free.pop_front()).flatten()
        };
        let place = match free {
            Some(place) => place as *mut Place<T>,
            None => Box::into_raw(Box::new(Place {
                state: AtomicU64::new(Place::<T>::GONE),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            })),
        };
        // SAFETY: the place is new, or has left the free ones: it is this function's alone.
        unsafe {
            (*(*place).value.get()).write(value);
            (*place).state.store(Place::<T>::LIVE, Ordering::Relaxed);
        }
        Owned(place, PhantomData)
    }

    /// NULL.
    pub(crate) fn null() -> Owned<T> {
        Owned(std::ptr::null(), PhantomData)
    }

    /// The object, which C still owns, for the argument `name`.
    pub(crate) fn given(&self, name: &str) -> Result<&'static T, Failure> {
        Ref(self.0).given(name)
    }

    /// Takes the object back; `None` for NULL. What is no object ends the process with one line.
    pub(crate) fn take(self, name: &str) -> Option<T> {
        if self.0.is_null() {
            return None;
        }
        assert!(self.0.is_aligned(), "{}", wrong::<T>(name));
        let (live, gone) = (Place::<T>::LIVE, Place::<T>::GONE);
        // SAFETY: as in `is_live`.
        let state = unsafe { &(*self.0).state };
        // Of two threads that give it back, one gets it.
        let took = state.compare_exchange(live, gone, Ordering::Relaxed, Ordering::Relaxed);
        assert!(took.is_ok(), "{}", wrong::<T>(name));
        // SAFETY: there was a value, and no other thread takes it.
        let value = unsafe { (*(*self.0).value.get()).assume_init_read() };
        T::pool().0.lock().push_back(self.0 as usize);
        Some(value)
    }
}

fn wrong<T: Kind>(name: &str) -> String {
    format!("{name} is no {}: it was given back, or is something else", T::NAME)
}
