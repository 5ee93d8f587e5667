//! What is registered: regions of managed code and ranges of native code, published for look-ups
//! without locks.
//!
//! All of it hangs off one pointer. A writer holds a mutex, builds the next version, and swaps the
//! pointer; versions share the compiled regions. A reader counts itself in, loads the pointer once,
//! and keeps what it points to for as long as its [`Snapshot`] lives.

mod error;
pub(crate) mod native;
pub(crate) mod published;
mod snapshot;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::FrameKind;
use crate::image::{Image, ImageError, loaded};
use crate::jit_debug::SymbolFile;
use crate::os::SystemFrames;
use crate::rcu::{Rcu, Retired};
use crate::region::{CompiledRegion, Region};
use crate::rule::PackedRule;
use crate::rule_table::RuleTable;
pub use error::{CodeError, RegionId};
pub use native::NativeRule;
use native::{CompiledRule, Native};
use published::Published;
pub use snapshot::{FunctionRef, Snapshot};

/// A region as debuggers and the system's unwinder know it, until this is dropped.
#[derive(Debug)]
struct Announced {
    /// The region's start, by which it is found among the published ones.
    start: usize,
    /// Both are `None` for code of a loaded image, which debuggers and the system's unwinder know
    /// already.
    _debugger: Option<SymbolFile>,
    _system: Option<SystemFrames>,
}

impl Announced {
    fn new(region: &Region) -> Announced {
        let jit = !loaded::holds_any(region.start..region.start + region.len);
        Announced {
            start: region.start,
            _debugger: jit.then(|| SymbolFile::announce(region)),
            _system: jit.then(|| SystemFrames::register(&region.eh_frame)),
        }
    }
}

/// All registered code. Threads share it by `Arc`. Look-ups go through [`Code::snapshot`] and take
/// no lock; registration takes a lock and allocates.
#[derive(Debug)]
pub struct Code {
    published: Rcu<Published>,
    writer: Mutex<Writer>,
}

/// The state of writers.
#[derive(Debug, Default)]
struct Writer {
    announced: HashMap<RegionId, Announced>,
    retired: Retired<Published>,
}

impl Default for Code {
    fn default() -> Code {
        Code::new()
    }
}

impl Code {
    /// Nothing registered.
    pub fn new() -> Code {
        Code { published: Rcu::new(Published::default()), writer: Mutex::default() }
    }

    /// Registers managed code: compiles its CFI, builds its safepoint table, and makes it known to
    /// debuggers and to the system's unwinder. The code itself must be in place, and stay until
    /// [`unregister`](Code::unregister).
    ///
    /// # Errors
    ///
    /// The region overlaps registered code, or contradicts itself. Nothing is registered then.
    pub fn register(&self, region: Region) -> Result<RegionId, CodeError> {
        let compiled = CompiledRegion::compile(&region)
            .map_err(|source| CodeError::Region { region: region.name.clone(), source })?;
        let mut writer = self.lock();
        self.publish(&mut writer, compiled.range(), &region.name, |next| {
            let i =
                next.regions.partition_point(|other| other.range().start < compiled.range().start);
            next.regions.insert(i, Arc::new(compiled));
        })?;
        // Relaxed: only the numbers' being distinct matters.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = RegionId(NEXT.fetch_add(1, Ordering::Relaxed));
        writer.announced.insert(id, Announced::new(&region));
        Ok(id)
    }

    /// Forgets a region. Snapshots taken before still see it. The code itself may be freed once no
    /// stack and no barrier refers to it and all earlier snapshots are dropped.
    ///
    /// # Errors
    ///
    /// No region with this id is registered.
    pub fn unregister(&self, id: RegionId) -> Result<(), CodeError> {
        let mut writer = self.lock();
        let Announced { start, .. } = writer.announced.remove(&id).ok_or(CodeError::Unknown(id))?;
        self.replace(&mut writer, |next| {
            next.regions.retain(|region| region.range().start != start)
        });
        Ok(())
    }

    /// Registers native code whose frames can stand on a managed stack. There is no way to forget
    /// it.
    ///
    /// # Errors
    ///
    /// The range is empty or overlaps registered code, the fixed offset is impossible, or the
    /// image has no usable CFI for the range.
    pub fn register_native(
        &self,
        range: Range<usize>,
        kind: FrameKind,
        rule: NativeRule,
    ) -> Result<(), CodeError> {
        let Range { start, end } = range;
        if start >= end {
            return Err(CodeError::NoRange { start, end });
        }
        let rule = match rule {
            NativeRule::End => CompiledRule::End,
            NativeRule::Fixed { cfa_offset } => {
                let rule = PackedRule::fixed(cfa_offset as usize).filter(|_| cfa_offset != 0);
                CompiledRule::Fixed(rule.ok_or(CodeError::FixedRule { start, cfa_offset })?)
            }
            NativeRule::FromImage => {
                let failed = |source| CodeError::Image { start, source };
                let (functions, unpacked) = loaded::functions(start..end).map_err(failed)?;
                if functions.is_empty() {
                    return Err(CodeError::NotCovered { start, end });
                }
                let table = RuleTable::build(functions, unpacked)
                    .map_err(|source| failed(ImageError::Cfi { address: start, source }))?;
                CompiledRule::Table(Box::new(table))
            }
        };
        let mut writer = self.lock();
        self.publish(&mut writer, start..end, "native code", |next| {
            let i = next.natives.partition_point(|other| other.range.start < start);
            next.natives.insert(i, Arc::new(Native { range: start..end, kind, rule }));
        })
    }

    /// Notes the images of the running process, so that traces cross their code. Yields whether
    /// `dlopen` or `dlclose` has changed them since the last call. It reads no CFI, and takes a
    /// fraction of a microsecond if nothing has changed.
    pub fn refresh_images(&self) -> bool {
        let mut writer = self.lock();
        let now = self.snapshot().published().generation;
        if loaded::generation() == now {
            return false;
        }
        self.replace(&mut writer, |next| {
            let known = |loaded: &_| next.images.iter().find(|image| image.is(loaded)).cloned();
            let (images, generation) = loaded::images(known, |name, code, loaded| {
                Arc::new(Image::from_process(name, code, Some(loaded)))
            });
            next.images.retain(|image| !image.is_of_process());
            next.images.extend(images);
            next.generation = generation;
        });
        true
    }

    /// Adds an image from a file, for walks over another process's memory.
    ///
    /// # Errors
    ///
    /// The image overlaps another one.
    pub fn add_image(&self, image: Image) -> Result<(), CodeError> {
        let mut writer = self.lock();
        for range in image.code() {
            let snapshot = self.snapshot();
            let mut others = snapshot.published().images.iter();
            let overlaps =
                |other: &Range<usize>| other.start < range.end && range.start < other.end;
            if let Some(other) = others.find(|other| other.code().iter().any(overlaps)) {
                let (name, with) = (image.name().into(), other.name().into());
                return Err(CodeError::Overlap { name, start: range.start, end: range.end, with });
            }
        }
        self.replace(&mut writer, |next| next.images.push(Arc::new(image)));
        Ok(())
    }

    /// What is registered now, for look-ups and walks. Wait-free, and safe in signal handlers.
    ///
    /// A snapshot keeps alive what it shows: drop it after a walk. A later registration frees what
    /// is no longer shown.
    #[inline]
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { published: self.published.read() }
    }

    /// Serialises writers.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(
        &self,
        writer: &mut Writer,
        range: Range<usize>,
        name: &str,
        change: impl FnOnce(&mut Published),
    ) -> Result<(), CodeError> {
        let overlap = self.snapshot().published().overlapping(&range);
        if let Some(with) = overlap {
            return Err(CodeError::Overlap {
                name: name.into(),
                start: range.start,
                end: range.end,
                with,
            });
        }
        self.replace(writer, change);
        Ok(())
    }

    /// Publishes a changed copy of the current version.
    fn replace(&self, writer: &mut Writer, change: impl FnOnce(&mut Published)) {
        let mut next = {
            let snapshot = self.snapshot();
            let now = snapshot.published();
            // Relaxed: only the numbers' being distinct matters.
            static NEXT: AtomicU64 = AtomicU64::new(1);
            Published {
                regions: now.regions.clone(),
                natives: now.natives.clone(),
                images: now.images.clone(),
                generation: now.generation,
                version: NEXT.fetch_add(1, Ordering::Relaxed),
            }
        };
        change(&mut next);
        self.published.replace(&mut writer.retired, next);
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `&mut self` means that no snapshot, which borrows `self`, is left.
        unsafe { writer.retired.free() };
    }
}
