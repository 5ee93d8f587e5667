//! What is registered: regions of managed code and ranges of native code, published for lookups
//! without locks.
//!
//! All of it hangs off one pointer. Whoever registers or unregisters holds a mutex, builds the next
//! version (the compiled regions themselves are shared between versions) and swaps the pointer; a
//! reader counts itself in, loads the pointer once, and keeps what it points to for as long as its
//! [`Snapshot`] lives.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::image::{self, Image, ImageError};
use crate::jit_debug::SymbolFile;
use crate::publish::{Reading, Retired, Shared};
use crate::region::{CompiledRegion, Region, RegionError};
use crate::rule::Rule;
use crate::safepoint::SafepointRef;
use crate::slow::UnwindRule;
use crate::system_unwinder::SystemFrames;
use crate::table::Table;

/// What a frame is, and so what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Compiler-generated code of a registered region.
    Managed,
    /// The frame through which native code called managed code; its return slot is rewritten by the
    /// call. It has two callers: a [`Walker`](crate::Walker) stays on its stack and goes on to the
    /// older managed code, an [`Unwinder`](crate::Unwinder) goes to the native code that called, as the
    /// system's unwinder does.
    Callback,
    /// The frame in which managed code has left its stack to call native code.
    SystemCall,
    /// The oldest frame of a stack.
    Entry,
    /// A return-address barrier's stub.
    Stub,
}

/// How the callers of native frames are found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NativeRule {
    /// By the `.eh_frame` of the loaded image that holds the code.
    FromImage,
    /// CFA = stack pointer + `cfa_offset`, the return address at CFA-8; the frame pointer is the
    /// caller's own.
    Fixed {
        /// Bytes from the stack pointer to the CFA: at least 8, a multiple of 8.
        cfa_offset: u32,
    },
    /// There is no caller: the frame is the oldest of its stack. So is every [`FrameKind::Entry`]
    /// frame, and every one whose CFI leaves the return address undefined.
    End,
}

/// A registered region of managed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(u64);

/// Why code was not registered or unregistered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The range overlaps one that is registered already.
    #[error("{name} at {start:#x}..{end:#x} overlaps {with}")]
    Overlap {
        /// What was to be registered.
        name: String,
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
        /// What it overlaps.
        with: String,
    },
    /// The region contradicts itself.
    #[error("region {region}: {source}")]
    Region {
        /// The region's name.
        region: String,
        /// What is wrong with it.
        source: RegionError,
    },
    /// The native range is empty or wraps around.
    #[error("native code at {start:#x}..{end:#x} is no range")]
    NoRange {
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// The fixed rule's offset is no multiple of 8, 0, or too large.
    #[error(
        "native code at {start:#x}: a CFA at {cfa_offset} bytes from the stack pointer is impossible"
    )]
    FixedRule {
        /// The range's start.
        start: usize,
        /// The offset.
        cfa_offset: u32,
    },
    /// The image's CFI for a native range was not found or is malformed.
    #[error("native code at {start:#x}: {source}")]
    Image {
        /// The range's start.
        start: usize,
        /// What is wrong.
        source: image::ImageError,
    },
    /// The image's CFI covers nothing of the native range.
    #[error("no CFI covers any of the native code at {start:#x}..{end:#x}")]
    NotCovered {
        /// The range's start.
        start: usize,
        /// The range's end.
        end: usize,
    },
    /// No such region is registered (any more).
    #[error("no region {0:?} is registered")]
    Unknown(RegionId),
}

/// A native range, compiled.
#[derive(Debug)]
pub(crate) struct Native {
    range: Range<usize>,
    pub(crate) kind: FrameKind,
    rule: CompiledRule,
}

#[derive(Debug)]
enum CompiledRule {
    Table(Box<Table>),
    Fixed(usize),
    End,
}

/// How to step over a native frame.
pub(crate) enum NativeStep {
    Rule(Rule),
    Fixed(usize),
    End,
}

impl Native {
    /// The step for a frame that stands at `pc`, which lies in the range.
    pub(crate) fn step(&self, pc: usize) -> NativeStep {
        match &self.rule {
            _ if self.kind == FrameKind::Entry => NativeStep::End,
            CompiledRule::Table(table) => NativeStep::Rule(table.rule(pc as u64)),
            CompiledRule::Fixed(offset) => NativeStep::Fixed(*offset),
            CompiledRule::End => NativeStep::End,
        }
    }
}

/// One version of everything that is registered. Both lists are sorted by address and overlap
/// nowhere.
#[derive(Debug, Default)]
pub(crate) struct Published {
    regions: Vec<Arc<CompiledRegion>>,
    natives: Vec<Arc<Native>>,
    /// Images may lie around natives; what is said of those comes first.
    images: Vec<Arc<Image>>,
    /// When the images of the process were noted.
    generation: (u64, u64),
    /// Different for every version of every table.
    pub(crate) version: u64,
}

/// What holds a pc.
#[derive(Clone, Copy)]
pub(crate) enum Found<'s> {
    Region(&'s CompiledRegion),
    Native(&'s Native),
}

impl<'s> Found<'s> {
    /// What a rule of this code stands for.
    pub(crate) fn resolve(self, rule: Rule) -> Option<UnwindRule<'s>> {
        match self {
            Found::Region(region) => region.resolve(rule),
            Found::Native(native) => match &native.rule {
                CompiledRule::Table(table) => table.resolve(rule),
                CompiledRule::Fixed(_) | CompiledRule::End => None,
            },
        }
    }
}

impl Published {
    /// The rule for a pc of any code. Takes neither memory nor a lock if it may not `read` images.
    pub(crate) fn rule(&self, pc: usize, read: bool) -> Result<Option<UnwindRule<'_>>, ImageError> {
        let by_image = || {
            let image = self.images.iter().find(|image| image.holds(pc))?;
            Some(if read { image.rule(pc) } else { image.rule_if_read(pc) })
        };
        let rule = match self.find(pc) {
            Some(found @ Found::Region(region)) => return Ok(found.resolve(region.rule(pc))),
            // To the native caller, not down the goroutine's stack.
            Some(Found::Native(native))
                if native.kind == FrameKind::Callback
                    && let Some(rule) = by_image() =>
            {
                return rule;
            }
            Some(found @ Found::Native(native)) => match native.step(pc) {
                NativeStep::Rule(rule) => return Ok(found.resolve(rule)),
                NativeStep::Fixed(offset) => Rule::fixed(offset),
                NativeStep::End => Rule::OLDEST,
            },
            None => {
                return by_image().unwrap_or(Ok(None));
            }
        };
        Ok(Some(UnwindRule::packed(rule)))
    }

    pub(crate) fn find(&self, pc: usize) -> Option<Found<'_>> {
        if let Some(region) = self.region(pc) {
            return Some(Found::Region(region));
        }
        let i = self.natives.partition_point(|native| native.range.start <= pc);
        let native = self.natives.get(i.checked_sub(1)?)?;
        native.range.contains(&pc).then_some(Found::Native(native))
    }

    #[inline]
    pub(crate) fn region(&self, pc: usize) -> Option<&CompiledRegion> {
        let i = self.regions.partition_point(|region| region.range().start <= pc);
        let region = self.regions.get(i.checked_sub(1)?)?;
        region.range().contains(&pc).then_some(region)
    }

    fn overlapping(&self, range: &Range<usize>) -> Option<String> {
        let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
        let region = self.regions.iter().find(|region| meets(&region.range()));
        let native = self.natives.iter().find(|native| meets(&native.range));
        match (region, native) {
            (Some(region), _) => Some(format!("region {}", region.name())),
            (_, Some(native)) => {
                Some(format!("{:?} code at {:#x}", native.kind, native.range.start))
            }
            _ => None,
        }
    }
}

/// A region as others than this crate's lookups know it, until this is dropped.
#[derive(Debug)]
struct Announced {
    /// Finds it among the published ones.
    start: usize,
    /// None of these two for code of a loaded image, which debuggers and the system's unwinder know
    /// without us.
    _debugger: Option<SymbolFile>,
    _system: Option<SystemFrames>,
}

impl Announced {
    fn new(region: &Region) -> Announced {
        let jit = !image::process::loaded(region.start..region.start + region.len);
        Announced {
            start: region.start,
            _debugger: jit.then(|| SymbolFile::announce(region)),
            _system: jit.then(|| SystemFrames::register(&region.eh_frame)),
        }
    }
}

/// The registered code of a runtime. Shared by `Arc`; lookups go through [`Code::snapshot`] and
/// take no lock.
#[derive(Debug)]
pub struct Code {
    published: Shared<Published>,
    writer: Mutex<Writer>,
}

/// What writers alone see.
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
        Code { published: Shared::new(Published::default()), writer: Mutex::default() }
    }

    /// Registers managed code: compiles its CFI, builds its safepoint table, and makes it known to
    /// debuggers and to the system's unwinder. The code itself must be in place, and stay until
    /// [`unregister`](Code::unregister).
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

    /// Forgets a region. Snapshots taken before still see it, in safety; those taken afterwards
    /// don't. The code itself may go when no stack and no barrier refers to it, and no such
    /// snapshot lives.
    pub fn unregister(&self, id: RegionId) -> Result<(), CodeError> {
        let mut writer = self.lock();
        let Announced { start, .. } = writer.announced.remove(&id).ok_or(CodeError::Unknown(id))?;
        self.replace(&mut writer, |next| {
            next.regions.retain(|region| region.range().start != start)
        });
        Ok(())
    }

    /// Registers native code whose frames can stand on a goroutine's stack.
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
                if cfa_offset == 0 || cfa_offset % 8 != 0 || cfa_offset > i32::MAX as u32 {
                    return Err(CodeError::FixedRule { start, cfa_offset });
                }
                CompiledRule::Fixed(cfa_offset as usize)
            }
            NativeRule::FromImage => {
                let failed = |source| CodeError::Image { start, source };
                let (functions, slow) = image::process::functions(start..end).map_err(failed)?;
                if functions.is_empty() {
                    return Err(CodeError::NotCovered { start, end });
                }
                let table = Table::build(functions, slow)
                    .map_err(|source| failed(image::ImageError::Cfi { address: start, source }))?;
                CompiledRule::Table(Box::new(table))
            }
        };
        let mut writer = self.lock();
        self.publish(&mut writer, start..end, "native code", |next| {
            let i = next.natives.partition_point(|other| other.range.start < start);
            next.natives.insert(i, Arc::new(Native { range: start..end, kind, rule }));
        })
    }

    /// Notes the images of the running process, so that traces cross their code: what `dlopen` has
    /// added since the last call, and what `dlclose` has taken away. Says whether anything has
    /// changed. Costs a fraction of a microsecond if nothing has; reads no CFI.
    pub fn refresh_images(&self) -> bool {
        let mut writer = self.lock();
        let now = self.snapshot().published().generation;
        if image::process::generation() == now {
            return false;
        }
        self.replace(&mut writer, |next| {
            let known = |loaded: &_| next.images.iter().find(|image| image.is(loaded)).cloned();
            let (images, generation) = image::process::images(known, Arc::new);
            next.images.retain(|image| !image.is_of_process());
            next.images.extend(images);
            next.generation = generation;
        });
        true
    }

    /// Adds an image that is not one of the running process: one from a file, for walks over
    /// another process's memory.
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

    /// What is registered now, for lookups and walks. What has been replaced is freed by the next
    /// registration after its last snapshot: keep one for a walk, not for a lifetime. Wait-free,
    /// and safe in signal handlers.
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

/// What was registered at one moment. While it lives, nothing that it shows is freed.
pub struct Snapshot<'c> {
    published: Reading<'c, Published>,
}

impl Snapshot<'_> {
    #[inline]
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// The function of managed code that holds `pc`. For a return address, ask for the byte before
    /// it.
    pub fn function(&self, pc: usize) -> Option<FunctionRef<'_>> {
        let region = self.published().region(pc)?;
        let (name, range, moves_return_address) = region.function(pc)?;
        Some(FunctionRef { region: region.name(), name, range, moves_return_address })
    }

    /// The safepoint at a return address.
    #[inline]
    pub fn safepoint(&self, return_address: usize) -> Option<SafepointRef<'_>> {
        self.published().region(return_address.wrapping_sub(1))?.safepoints().get(return_address)
    }

    /// How many safepoints the regions have, and the bytes of memory that their tables take.
    pub fn safepoint_tables(&self) -> (usize, usize) {
        let sizes = self.published().regions.iter().map(|region| region.safepoints().size());
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Whether managed code that is registered signs its return addresses (arm64 PAC). Its
    /// functions get no return-address barriers.
    pub fn signs_return_addresses(&self) -> bool {
        self.published().regions.iter().any(|region| region.signs())
    }

    /// The image that holds `pc`.
    pub fn image(&self, pc: usize) -> Option<&Image> {
        self.published().images.iter().find(|image| image.holds(pc)).map(|image| &**image)
    }

    /// Reads the CFI of all images, so that traces in signal handlers find it.
    pub fn read_images(&self) -> Result<(), ImageError> {
        self.published().images.iter().try_for_each(|image| image.read())
    }

    /// How the caller of a frame at `pc` is found. For a return address, ask for the byte before
    /// it. `None` if nothing registered and no image covers it.
    pub fn rule(&self, pc: usize) -> Result<Option<UnwindRule<'_>>, ImageError> {
        self.published().rule(pc, true)
    }

    /// What kind of code holds `pc`; `None` for code that only an image describes.
    pub fn kind(&self, pc: usize) -> Option<FrameKind> {
        Some(match self.published().find(pc)? {
            Found::Region(_) => FrameKind::Managed,
            Found::Native(native) => native.kind,
        })
    }
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.published().fmt(f)
    }
}

/// A function of managed code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef<'s> {
    /// The name of its region.
    pub region: &'s str,
    /// Its own name.
    pub name: &'s str,
    /// Where its code lies.
    pub range: Range<usize>,
    /// Whether it moves its return address.
    pub moves_return_address: bool,
}
