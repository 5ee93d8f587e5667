//! Roots that native code holds: handles, weak references, callbacks of finalisation.

use std::ffi::{c_int, c_void};

use stackmark::handle::Handle;
use stackmark::weak::{WeakMap, WeakReference};

use crate::abi::{Out, User, code, given, make};
use crate::collector::CollectorBox;
use crate::machine::need_inside;
use crate::object::{Owned, Ref, kind};

/// `stackmark_handle`.
#[derive(Debug)]
pub(crate) struct HandleBox(Handle);

kind!(HandleBox = "stackmark_handle");

/// `stackmark_weak`.
#[derive(Debug)]
pub(crate) struct WeakBox(WeakReference);

kind!(WeakBox = "stackmark_weak");

/// `stackmark_weak_map`.
#[derive(Debug)]
pub(crate) struct WeakMapBox(WeakMap);

kind!(WeakMapBox = "stackmark_weak_map");

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_new(
    collector: Ref<CollectorBox>,
    word: usize,
    out: Out<'_, Owned<HandleBox>>,
) -> c_int {
    make(out, "out", || {
        Ok(Owned::new(HandleBox(collector.given("collector")?.handles().create(word))))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_get(handle: Ref<HandleBox>) -> usize {
    handle.get("stackmark_handle_get: handle").map_or(0, |handle| handle.0.get())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_set(handle: Ref<HandleBox>, word: usize) {
    handle.needed("stackmark_handle_set: handle").0.set(word);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handle_free(handle: Owned<HandleBox>) {
    drop(handle.take("stackmark_handle_free: handle"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_new(
    collector: Ref<CollectorBox>,
    word: usize,
    out: Out<'_, Owned<WeakBox>>,
) -> c_int {
    make(out, "out", || Ok(Owned::new(WeakBox(collector.given("collector")?.weak().create(word)))))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_get(weak: Ref<WeakBox>) -> usize {
    need_inside("stackmark_weak_get");
    weak.get("stackmark_weak_get: weak").and_then(|weak| weak.0.get()).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_upgrade(weak: Ref<WeakBox>) -> Owned<HandleBox> {
    let weak = weak.get("stackmark_weak_upgrade: weak");
    let handle = weak.and_then(|weak| weak.0.upgrade());
    handle.map_or(Owned::null(), |handle| Owned::new(HandleBox(handle)))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_free(weak: Owned<WeakBox>) {
    drop(weak.take("stackmark_weak_free: weak"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_on_unreachable(
    collector: Ref<CollectorBox>,
    word: usize,
    f: Option<extern "C" fn(*mut c_void, Owned<HandleBox>)>,
    user: *mut c_void,
) -> c_int {
    code((|| {
        let (collector, f) = (collector.given("collector")?, given(f, "f")?);
        let user = User(user);
        collector.weak().on_unreachable(word, move |handle| {
            f(user.pointer(), Owned::new(HandleBox(handle)));
        });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_new(
    collector: Ref<CollectorBox>,
    out: Out<'_, Owned<WeakMapBox>>,
) -> c_int {
    make(out, "out", || Ok(Owned::new(WeakMapBox(collector.given("collector")?.weak().map()))))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_insert(map: Ref<WeakMapBox>, key: usize, value: usize) {
    need_inside("stackmark_weak_map_insert");
    map.needed("stackmark_weak_map_insert: map").0.insert(key, value);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_get(
    map: Ref<WeakMapBox>,
    key: usize,
    value: Out<'_, usize>,
) -> c_int {
    need_inside("stackmark_weak_map_get");
    let map = map.get("stackmark_weak_map_get: map");
    found(map.and_then(|map| map.0.get(key)), value, "stackmark_weak_map_get: value")
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_remove(
    map: Ref<WeakMapBox>,
    key: usize,
    value: Out<'_, usize>,
) -> c_int {
    need_inside("stackmark_weak_map_remove");
    let map = map.get("stackmark_weak_map_remove: map");
    found(map.and_then(|map| map.0.remove(key)), value, "stackmark_weak_map_remove: value")
}

fn found(word: Option<usize>, value: Out<'_, usize>, name: &str) -> c_int {
    let (Some(word), place) = (word, value.get(name)) else { return 0 };
    if let Some(place) = place {
        place.write(word);
    }
    1
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_count(map: Ref<WeakMapBox>) -> usize {
    map.get("stackmark_weak_map_count: map").map_or(0, |map| map.0.len())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_weak_map_free(map: Owned<WeakMapBox>) {
    drop(map.take("stackmark_weak_map_free: map"));
}
