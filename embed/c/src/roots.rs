//! Roots that native code holds: handles, weak references, callbacks of finalisation.

use std::ffi::{c_int, c_void};

use stackmark::handle::Handle;
use stackmark::weak::{WeakMap, WeakReference};

use crate::abi::{Out, User, code, given, make};
use crate::collector::CollectorBox;

/// `stackmark_handle`.
#[derive(Debug)]
pub(crate) struct HandleBox(Handle);

/// `stackmark_weak`.
#[derive(Debug)]
pub(crate) struct WeakBox(WeakReference);

/// `stackmark_weak_map`.
#[derive(Debug)]
pub(crate) struct WeakMapBox(WeakMap);

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_new(
    collector: Option<&CollectorBox>,
    word: usize,
    out: Out<'_, Box<HandleBox>>,
) -> c_int {
    make(out, "out", || {
        Ok(Box::new(HandleBox(given(collector, "collector")?.handles().create(word))))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_get(handle: Option<&HandleBox>) -> usize {
    handle.map_or(0, |handle| handle.0.get())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_set(handle: Option<&HandleBox>, word: usize) {
    handle.expect("stackmark_handle_set: handle is NULL").0.set(word);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_free(handle: Option<Box<HandleBox>>) {
    drop(handle);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_new(
    collector: Option<&CollectorBox>,
    word: usize,
    out: Out<'_, Box<WeakBox>>,
) -> c_int {
    make(out, "out", || Ok(Box::new(WeakBox(given(collector, "collector")?.weak().create(word)))))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_get(weak: Option<&WeakBox>) -> usize {
    weak.and_then(|weak| weak.0.get()).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_upgrade(weak: Option<&WeakBox>) -> Option<Box<HandleBox>> {
    weak.and_then(|weak| weak.0.upgrade()).map(|handle| Box::new(HandleBox(handle)))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_free(weak: Option<Box<WeakBox>>) {
    drop(weak);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_on_unreachable(
    collector: Option<&CollectorBox>,
    word: usize,
    f: Option<extern "C" fn(*mut c_void, Box<HandleBox>)>,
    user: *mut c_void,
) -> c_int {
    code((|| {
        let (collector, f) = (given(collector, "collector")?, given(f, "f")?);
        let user = User(user);
        collector.weak().on_unreachable(word, move |handle| {
            f(user.pointer(), Box::new(HandleBox(handle)));
        });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_new(
    collector: Option<&CollectorBox>,
    out: Out<'_, Box<WeakMapBox>>,
) -> c_int {
    make(out, "out", || Ok(Box::new(WeakMapBox(given(collector, "collector")?.weak().map()))))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_insert(map: Option<&WeakMapBox>, key: usize, value: usize) {
    map.expect("stackmark_weak_map_insert: map is NULL").0.insert(key, value);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_get(
    map: Option<&WeakMapBox>,
    key: usize,
    value: Out<'_, usize>,
) -> c_int {
    found(map.and_then(|map| map.0.get(key)), value)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_remove(
    map: Option<&WeakMapBox>,
    key: usize,
    value: Out<'_, usize>,
) -> c_int {
    found(map.and_then(|map| map.0.remove(key)), value)
}

fn found(word: Option<usize>, value: Out<'_, usize>) -> c_int {
    match (word, value) {
        (Some(word), Some(value)) => {
            value.write(word);
            1
        }
        (word, _) => word.is_some().into(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_count(map: Option<&WeakMapBox>) -> usize {
    map.map_or(0, |map| map.0.len())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_free(map: Option<Box<WeakMapBox>>) {
    drop(map);
}
