//! What is registered: regions of managed code and ranges of native code, published for look-ups
//! without locks.
//!
//! All of it hangs off one pointer. A writer holds a mutex, builds the next version, and swaps the
//! pointer. Versions share what did not change, so a change takes O(log n). A reader counts itself
//! in, loads the pointer once, and keeps what it points to for as long as its [`Snapshot`] lives.

pub(crate) mod changes;
mod error;
mod managed;
pub(crate) mod native;
pub(crate) mod published;
mod range_map;
mod snapshot;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::FrameKind;
use crate::image::{Image, ImageError};
use crate::jit_debug::SymbolFile;
use crate::managed_image;
use crate::os;
use crate::os_frames::SystemFrames;
use crate::os_images;
use crate::rcu::{Rcu, Retired};
use crate::region::{Announce, CompiledRegion, Region, Vectors};
use crate::rule::PackedRule;
use crate::rule_table::RuleTable;
pub use error::{CodeError, RegionId};
pub use managed::{ManagedImage, RegisterImageError};
pub use native::NativeRule;
use native::{CompiledRule, Native};
use published::Published;
pub use snapshot::{FunctionRef, Snapshot};

/// A region, and how debuggers and the system's unwinder know it, until this is dropped.
#[derive(Debug)]
struct Announced {
    /// The region's start, by which it is found among the published ones.
    start: usize,
    _debugger: Option<SymbolFile>,
    _system: Option<SystemFrames>,
}

impl Announced {
    /// Tells of `region`, as far as it wishes. Code of a loaded image is known already.
    fn new(region: &Region, has_rules: bool) -> Announced {
        let Announce { debugger, system_unwinder } = region.announce;
        let jit = (debugger || system_unwinder)
            && !os_images::holds_any(region.start..region.start + region.len);
        Announced {
            start: region.start,
            _debugger: (jit && debugger).then(|| SymbolFile::announce(region)),
            // Without a rule there is nothing to find. The unwinder may not take such a section.
            _system: (jit && system_unwinder && has_rules)
                .then(|| SystemFrames::register(region))
                .flatten(),
        }
    }
}

/// All registered code. Threads share it by `Arc`. Look-ups go through [`Code::snapshot`] and take
/// no lock; registration takes a lock and allocates.
#[derive(Debug)]
pub struct Code {
    published: Rcu<Published>,
    writer: Mutex<Writer>,
    /// See [`Code::vectors`]. Relaxed: code is called after its registration, and what hands its
    /// address to another thread orders this, too.
    vectors: AtomicU8,
}

/// The state of writers.
#[derive(Debug, Default)]
struct Writer {
    announced: BTreeMap<RegionId, Announced>,
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
        // Relaxed: only the numbers' being distinct matters.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let code = NEXT.fetch_add(1, Ordering::Relaxed);
        let published = Published { code, ..Published::default() };
        Code {
            published: Rcu::new(published),
            writer: Mutex::default(),
            vectors: AtomicU8::new(Vectors::Results as u8),
        }
    }

    /// The greatest of the [`Region::vectors`] that have ever been registered: written before the
    /// region's code can be called. It never becomes less.
    pub fn vectors(&self) -> &AtomicU8 {
        &self.vectors
    }

    /// Registers managed code: compiles its CFI, builds its safepoint table, and makes it known to
    /// debuggers and to the system's unwinder, as far as the region [wishes](Region::announce). The
    /// code itself must be in place, and stay until [`unregister`](Code::unregister).
    ///
    /// This library writes no code. On processors whose instruction caches do not follow stores,
    /// the writer of the code cleans and invalidates them before it hands out an address of it, and
    /// has all processors fetch anew (arm64 Linux: membarrier(2) with `SYNC_CORE`), as JIT
    /// compilers do. The same goes for code that takes the place of forgotten code.
    ///
    /// Beside the work for the region itself it takes O(log n), n being the number of regions.
    ///
    /// # Errors
    ///
    /// The region overlaps registered code, or contradicts itself. Nothing is registered then.
    pub fn register(&self, region: Region) -> Result<RegionId, CodeError> {
        let mut first = None;
        self.register_each(&[region], |id| first = Some(id))?;
        Ok(first.expect("one region, one id"))
    }

    /// Registers several regions at once, as [`register`](Code::register) would one after the
    /// other. Look-ups see all of them or none. Yields their ids in the same order.
    ///
    /// # Errors
    ///
    /// A region overlaps registered code or another one of them, or contradicts itself. Nothing is
    /// registered then.
    pub fn register_all(&self, regions: &[Region]) -> Result<Vec<RegionId>, CodeError> {
        let mut ids = Vec::with_capacity(regions.len());
        self.register_each(regions, |id| ids.push(id))?;
        Ok(ids)
    }

    fn register_each(
        &self,
        regions: &[Region],
        mut each: impl FnMut(RegionId),
    ) -> Result<(), CodeError> {
        let compile = |region: &Region| {
            let failed = |source| CodeError::Region { region: region.name.clone(), source };
            CompiledRegion::compile(region).map_err(failed)
        };
        let compiled = regions.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        if let Some(vectors) = regions.iter().map(|region| region.vectors).max() {
            self.vectors.fetch_max(vectors as u8, Ordering::Relaxed);
        }
        let has_rules: Vec<bool> = compiled.iter().map(CompiledRegion::has_rules).collect();
        let mut writer = self.lock();
        self.replace(&mut writer, |next| {
            for region in compiled {
                let range = region.range();
                refuse_overlap(next, &range, region.name())?;
                if next.has_image_code(&range) {
                    next.changed(range.clone());
                }
                next.regions.insert(range, region);
            }
            Ok(())
        })?;
        for (region, has_rules) in regions.iter().zip(has_rules) {
            // Relaxed: only the numbers' being distinct matters.
            static NEXT: AtomicU64 = AtomicU64::new(1);
            let id = RegionId(NEXT.fetch_add(1, Ordering::Relaxed));
            writer.announced.insert(id, Announced::new(region, has_rules));
            each(id);
        }
        Ok(())
    }

    /// Forgets a region, in O(log n). Snapshots taken before still see it. The code itself may be
    /// freed once no stack and no barrier refers to it and all earlier snapshots are dropped.
    ///
    /// # Errors
    ///
    /// No region with this id is registered.
    pub fn unregister(&self, id: RegionId) -> Result<(), CodeError> {
        self.unregister_all(&[id])
    }

    /// Forgets several regions at once, as [`unregister`](Code::unregister) does one.
    ///
    /// # Errors
    ///
    /// An id is not that of a registered region, or comes twice. Nothing is forgotten then.
    pub fn unregister_all(&self, ids: &[RegionId]) -> Result<(), CodeError> {
        let mut writer = self.lock();
        let mut gone = Vec::with_capacity(ids.len());
        for id in ids {
            match writer.announced.remove(id) {
                Some(announced) => gone.push((*id, announced)),
                None => {
                    writer.announced.extend(gone);
                    return Err(CodeError::Unknown(*id));
                }
            }
        }
        self.replace(&mut writer, |next| {
            for (_, announced) in &gone {
                if let Some(region) = next.regions.remove(announced.start) {
                    next.changed(region.range());
                }
            }
            Ok(())
        })
    }

    /// Where a region lies; `None` if it is not registered any more.
    pub fn range_of(&self, id: RegionId) -> Option<Range<usize>> {
        let writer = self.lock();
        let start = writer.announced.get(&id)?.start;
        self.snapshot().published().region(start).map(CompiledRegion::range)
    }

    /// Registers the managed code of an image, which was compiled ahead of time: the program itself
    /// or a shared object. `address` is any address in the image, for example one of its functions.
    ///
    /// The image's stack maps name its managed functions: those in a section `.llvm_stackmaps`
    /// ([`stack_map::llvm`](crate::stack_map::llvm)) and in a section `.stackmark_maps`
    /// ([`stack_map::object`](crate::stack_map::object)). The image's own CFI says how they are
    /// walked, and its symbols, or those of its debug file, what they are called. The file that the
    /// image was loaded from is read again for that. Functions without a safepoint of their own are
    /// not registered, unless `.stackmark_maps` lists them.
    ///
    /// No frame may be larger than `max_frame` bytes. The arguments that a call pushes count where
    /// the map says them.
    ///
    /// The image must stay loaded until [`unregister_image`](Code::unregister_image).
    ///
    /// # Errors
    ///
    /// The image has no such section, or a broken one; the error names section and offset. Or its
    /// code is registered already, or contradicts its maps. Or it is one of Windows
    /// ([`ImageError::MapsOfFormat`](crate::ImageError::MapsOfFormat)). Nothing is registered then.
    pub fn register_image(
        &self,
        address: usize,
        max_frame: Option<u32>,
    ) -> Result<ManagedImage, RegisterImageError> {
        let (name, regions) = managed_image::regions(address, max_frame)?;
        let code = regions.iter().map(|region| region.start..region.start + region.len).collect();
        Ok(ManagedImage { name, ids: self.register_all(&regions)?, code })
    }

    /// Forgets the managed code of an image, as [`unregister_all`](Code::unregister_all) does. The
    /// caller knows that none of its frames is left: this call does not look.
    ///
    /// # Errors
    ///
    /// The image is not registered any more.
    pub fn unregister_image(&self, image: &ManagedImage) -> Result<(), CodeError> {
        self.unregister_all(&image.ids)
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
            NativeRule::Anchor { offset } => CompiledRule::Anchor(offset),
            NativeRule::FromImage => {
                let failed = |source| CodeError::Image { start, source };
                let (functions, unpacked) = os_images::functions(start..end).map_err(failed)?;
                if functions.is_empty() {
                    return Err(CodeError::NotCovered { start, end });
                }
                let table = RuleTable::build(functions, unpacked)
                    .map_err(|source| failed(ImageError::Cfi { address: start, source }))?;
                CompiledRule::Table(Box::new(table))
            }
        };
        let mut writer = self.lock();
        self.replace(&mut writer, |next| {
            let range = start..end;
            refuse_overlap(next, &range, "native code")?;
            if next.has_image_code(&range) {
                next.changed(range.clone());
            }
            next.natives.insert(range.clone(), Native { range, kind, rule });
            Ok(())
        })
    }

    /// Notes the images of the running process, so that traces cross their code. Yields whether
    /// `dlopen` or `dlclose` has changed them since the last call. It reads no CFI, and takes a
    /// fraction of a microsecond if nothing has changed.
    pub fn refresh_images(&self) -> bool {
        let mut writer = self.lock();
        let now = self.snapshot().published().generation;
        if os_images::generation() == now {
            return false;
        }
        let changed: Result<(), CodeError> = self.replace(&mut writer, |next| {
            let known = |loaded: &_| next.images.iter().find(|image| image.is(loaded)).cloned();
            let (images, generation) = os_images::images(known, |name, code, loaded| {
                Arc::new(Image::from_process(name, code, Some(loaded)))
            });
            let others = next.images.iter().filter(|image| !image.is_of_process()).cloned();
            set_images(next, others.chain(images).collect());
            next.generation = generation;
            next.context_end = os::context_end().unwrap_or(0);
            Ok(())
        });
        changed.is_ok()
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
        self.replace(&mut writer, |next| {
            let images = next.images.iter().cloned().chain([Arc::new(image)]).collect();
            set_images(next, images);
            Ok(())
        })
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

    /// Publishes a changed copy of the current version, unless `change` fails.
    fn replace(
        &self,
        writer: &mut Writer,
        change: impl FnOnce(&mut Published) -> Result<(), CodeError>,
    ) -> Result<(), CodeError> {
        let mut next = self.snapshot().published().clone();
        next.version += 1;
        change(&mut next)?;
        self.published.replace(&mut writer.retired, next);
        Ok(())
    }
}

fn refuse_overlap(next: &Published, range: &Range<usize>, name: &str) -> Result<(), CodeError> {
    let Range { start, end } = *range;
    let overlap = |with| CodeError::Overlap { name: name.into(), start, end, with };
    next.overlapping(range).map_or(Ok(()), |with| Err(overlap(with)))
}

/// Replaces the images, and notes whose rules are others now.
fn set_images(next: &mut Published, images: Vec<Arc<Image>>) {
    let is_in = |image: &Arc<Image>, others: &[Arc<Image>]| {
        others.iter().any(|other| Arc::ptr_eq(image, other))
    };
    let gone = next.images.iter().filter(|image| !is_in(image, &images));
    let mut changed: Vec<Range<usize>> = gone.flat_map(|image| image.code().to_vec()).collect();
    let new = images.iter().filter(|image| !is_in(image, &next.images));
    for code in new.flat_map(|image| image.code()) {
        // Callbacks have the rule of an image, where one holds them.
        let natives = next.natives.values().filter(|native| native.kind == FrameKind::Callback);
        let within = natives.map(|native| native.range());
        changed.extend(within.filter(|range| range.start < code.end && code.start < range.end));
    }
    changed.into_iter().for_each(|range| next.changed(range));
    next.images = images.into();
}

impl Drop for Code {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `&mut self` means that no snapshot, which borrows `self`, is left.
        unsafe { writer.retired.free() };
    }
}
