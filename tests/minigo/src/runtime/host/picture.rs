//! The picture of a stack that `--picture` asks for.

use parking_lot::Mutex;
use stackmark::stack::{Goroutine, Picture, Runtime};
use std::path::Path;

/// The last one that was taken.
static LAST: Mutex<Option<Picture>> = Mutex::new(None);

/// Takes a picture of a goroutine that has parked, and keeps it instead of the last one.
pub(super) fn take(runtime: &Runtime, goroutine: &Goroutine) {
    if let Ok(Some(picture)) = runtime.picture(goroutine) {
        *LAST.lock() = Some(picture);
    }
}

/// Writes the last picture to `file`. If there is none, that of the deepest stack that can be taken
/// now.
pub(super) fn write(runtime: &Runtime, file: &Path) -> std::io::Result<()> {
    let deepest = || {
        let goroutines = runtime.goroutines();
        let pictures = goroutines.iter().filter_map(|g| runtime.picture(g).ok().flatten());
        pictures.max_by_key(|picture| picture.frames.len())
    };
    let picture = LAST.lock().take().or_else(deepest);
    let picture = picture.ok_or_else(|| std::io::Error::other("no goroutine stands still"))?;
    std::fs::write(file, picture.to_svg())
}
