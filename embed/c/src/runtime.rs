//! Runtimes and goroutines.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use stackmark::stack::{
    BarrierMode, Config, Detection, FrameAt, Goroutine, Request, Runtime, RuntimeError, Schedule,
    StackError, StackKind, Status, Word, traceback,
};
use stackmark::unwind::{Code, FrameKind, RegionId};

use crate::abi::{
    Failure, INVALID, NO_MEMORY, Out, SYSTEM, User, Versioned, WALK, check_array, check_place,
    code, end_with_panics, given, make, put_structs, put_text, read, slice,
};
use crate::host::{CHost, HostTable};
use crate::numbers::{
    BARRIERS_EVERY_FRAME, BARRIERS_INCREMENTAL, BARRIERS_OFF, BARRIERS_RESCAN_LIMIT, DEAD,
    FRAME_CALLBACK, FRAME_ENTRY, FRAME_MANAGED, FRAME_STUB, FRAME_SYSTEM_CALL, IN_FOREIGN, PARKED,
    RUNNABLE, RUNNING, STACK_FIXED, STACK_MOVING,
};
use crate::object::{Owned, Ref, kind};

/// `stackmark_runtime`.
#[derive(Debug)]
pub(crate) struct RuntimeBox(pub(crate) Arc<Runtime>, pub(crate) Regions);

/// The regions that C knows, by the numbers that it knows them by.
pub(crate) type Regions = Mutex<HashMap<u64, RegionId>>;

kind!(RuntimeBox = "stackmark_runtime");

/// `stackmark_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigTable {
    pub(crate) size: usize,
    pub(crate) max_stack: usize,
    pub(crate) move_limit: usize,
    pub(crate) barriers: u32,
    pub(crate) ignore_protection: u32,
    pub(crate) report_stop_after_ms: u32,
    pub(crate) scan_few_frames: u32,
    pub(crate) move_every_poll: u32,
    pub(crate) poison: u32,
    pub(crate) poll_always: u32,
    pub(crate) max_frame: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for ConfigTable {}

/// `stackmark_frame`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameTable {
    pub(crate) size: usize,
    pub(crate) pc: usize,
    pub(crate) depth: usize,
    pub(crate) cfa_depth: usize,
    pub(crate) kind: u32,
    pub(crate) reserved: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for FrameTable {}

impl FrameTable {
    pub(crate) fn new(frame: &FrameAt) -> FrameTable {
        let kind = match frame.kind {
            FrameKind::Managed => FRAME_MANAGED,
            FrameKind::Callback => FRAME_CALLBACK,
            FrameKind::SystemCall => FRAME_SYSTEM_CALL,
            FrameKind::Entry => FRAME_ENTRY,
            FrameKind::Stub => FRAME_STUB,
        };
        let FrameAt { pc, depth, cfa_depth, .. } = *frame;
        FrameTable { size: size_of::<FrameTable>(), pc, depth, cfa_depth, kind, reserved: 0 }
    }
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Failure {
        Failure::new(NO_MEMORY, error)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        use RuntimeError::{MaxFrame, MaxStack};
        let is_invalid = matches!(error, MaxStack { .. } | MaxFrame { .. });
        Failure::new(if is_invalid { INVALID } else { SYSTEM }, error)
    }
}

fn config(table: &ConfigTable) -> Result<Config, Failure> {
    let mut config = Config {
        barriers: match table.barriers {
            BARRIERS_INCREMENTAL => BarrierMode::Incremental,
            BARRIERS_RESCAN_LIMIT => BarrierMode::RescanLimit,
            BARRIERS_EVERY_FRAME => BarrierMode::EveryFrame,
            BARRIERS_OFF => BarrierMode::Off,
            other => return Err(Failure::invalid(format_args!("config: barriers is {other}"))),
        },
        scan_few_frames: table.scan_few_frames != 0,
        move_every_poll: table.move_every_poll != 0,
        poison: table.poison != 0,
        poll_always: table.poll_always != 0,
        ..Config::default()
    };
    if table.max_stack != 0 {
        config.max_stack = table.max_stack;
    }
    if table.max_frame != 0 {
        config.max_frame = table.max_frame as usize;
    }
    if table.move_limit != 0 {
        config.move_limit = table.move_limit;
    }
    if table.ignore_protection != 0 {
        config.protection = Detection::Ignore;
    }
    match table.report_stop_after_ms {
        0 => {}
        u32::MAX => config.report_stop_after = None,
        ms => config.report_stop_after = Some(Duration::from_millis(ms.into())),
    }
    Ok(config)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_runtime_new(
    table: *const ConfigTable,
    host: *const HostTable,
    out: Out<'_, Owned<RuntimeBox>>,
) -> c_int {
    end_with_panics();
    make(out, "out", || {
        // SAFETY: the header asks for such structs.
        let (table, host) = unsafe { (read(table, "config")?, read(host, "host")?) };
        let config = config(&table)?;
        let host = Box::new(CHost::new(host));
        Ok(Owned::new(RuntimeBox(
            Runtime::new(config, Arc::new(Code::new()), host)?,
            Regions::default(),
        )))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_runtime_release(runtime: Owned<RuntimeBox>) {
    drop(runtime.take("stackmark_runtime_release: runtime"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_spawn(
    runtime: Ref<RuntimeBox>,
    kind: u32,
    entry: usize,
    argument: usize,
    out: Out<'_, *const Goroutine>,
) -> c_int {
    make(out, "out", || {
        let runtime = runtime.given("runtime")?;
        let kind = match kind {
            STACK_MOVING => StackKind::Moving,
            STACK_FIXED => StackKind::Fixed,
            other => return Err(Failure::invalid(format_args!("the kind of stack is {other}"))),
        };
        managed(&runtime.0, entry, "entry")?;
        // SAFETY: the header asks for managed code that keeps the contracts.
        Ok(give(unsafe { runtime.0.spawn_on(kind, entry, argument)? }))
    })
}

/// Checks that registered managed code lies at `pc`: native code there would overrun the stack.
pub(crate) fn managed(runtime: &Runtime, pc: usize, name: &str) -> Result<(), Failure> {
    let kind = runtime.code().snapshot().kind(pc);
    let text = format_args!("{name}: no managed code is registered at {pc:#x}");
    (kind == Some(FrameKind::Managed)).then_some(()).ok_or_else(|| Failure::invalid(text))
}

/// A goroutine that C passes, and goes on to own or to borrow.
#[repr(transparent)]
pub(crate) struct Alive(*const Goroutine);

impl Alive {
    /// It, for the argument `goroutine`.
    fn given(&self) -> Result<&'static Goroutine, Failure> {
        check_place(self.0, "goroutine")?;
        // SAFETY: the header asks for a goroutine that is owned, or whose runtime lives.
        Ok(unsafe { &*self.0 })
    }

    /// As [`Alive::given`]; `None` for NULL. For functions that have no way to fail: the process
    /// ends with one line.
    fn get(&self, function: &str) -> Option<&'static Goroutine> {
        let goroutine = (!self.0.is_null()).then(|| self.given())?;
        Some(goroutine.unwrap_or_else(|failure| panic!("{function}: {failure}")))
    }
}

/// Gives C an owned reference to a goroutine.
pub(crate) fn give(goroutine: Arc<Goroutine>) -> *const Goroutine {
    // Relaxed: a count, of what the `Arc` orders.
    goroutine.owned_outside().fetch_add(1, Relaxed);
    Arc::into_raw(goroutine)
}

/// Takes an owned reference to a goroutine.
///
/// # Errors
/// C owns none.
///
/// # Safety
/// The pointer is null, or one of a goroutine that is owned, or whose runtime lives.
pub(crate) unsafe fn owned(goroutine: *const Goroutine) -> Result<Arc<Goroutine>, Failure> {
    let owners = Alive(goroutine).given()?.owned_outside();
    // Relaxed: as in `give`.
    let taken = owners.fetch_update(Relaxed, Relaxed, |owners| owners.checked_sub(1));
    let text = "goroutine: all its owned references were given back";
    taken.map_err(|_| Failure::invalid(text))?;
    // SAFETY: one that `give` has given is left, and is this one now.
    Ok(unsafe { Arc::from_raw(goroutine) })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_retain(goroutine: *const Goroutine) -> *const Goroutine {
    if goroutine.is_null() {
        return goroutine;
    }
    // SAFETY: the header asks for a live goroutine, which an `Arc` holds.
    give(unsafe {
        Arc::increment_strong_count(goroutine);
        Arc::from_raw(goroutine)
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_release(goroutine: *const Goroutine) {
    if !goroutine.is_null() {
        // SAFETY: the header asks for an owned reference.
        let released = unsafe { owned(goroutine) };
        released.map(drop).unwrap_or_else(|failure| {
            panic!("stackmark_goroutine_release: {failure}");
        });
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_id(goroutine: Alive) -> u64 {
    goroutine.get("stackmark_goroutine_id").map_or(0, Goroutine::id)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_status(goroutine: Alive) -> c_int {
    match goroutine.get("stackmark_goroutine_status").map(Goroutine::status) {
        Some(Status::Runnable) => RUNNABLE,
        Some(Status::Running) => RUNNING,
        Some(Status::Parked) => PARKED,
        Some(Status::Foreign) => IN_FOREIGN,
        Some(Status::Dead) | None => DEAD,
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_user(goroutine: Alive) -> usize {
    let goroutine = goroutine.get("stackmark_goroutine_user");
    goroutine.map_or(0, |goroutine| goroutine.user_word().load(Relaxed))
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutine_set_user(goroutine: Alive, word: usize) {
    if let Some(goroutine) = goroutine.get("stackmark_goroutine_set_user") {
        goroutine.user_word().store(word, Relaxed);
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_preempt(goroutine: Alive) {
    if let Some(goroutine) = goroutine.get("stackmark_preempt") {
        goroutine.request(Request::YIELD);
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_preempt_all(runtime: Ref<RuntimeBox>) {
    if let Some(runtime) = runtime.get("stackmark_preempt_all: runtime") {
        runtime.0.preempt_all();
    }
}

fn word(word: usize, is_reference: bool) -> Word {
    if is_reference { Word::Reference(word) } else { Word::Plain(word) }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_ready(
    runtime: Ref<RuntimeBox>,
    goroutine: *const Goroutine,
    value: usize,
    is_reference: c_int,
) -> c_int {
    code((|| {
        let runtime = runtime.given("runtime")?;
        // SAFETY: the header asks for an owned reference. Last: a failure takes none.
        let goroutine = unsafe { owned(goroutine)? };
        runtime.0.ready(goroutine, word(value, is_reference != 0));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_schedule(runtime: Ref<RuntimeBox>, goroutine: *const Goroutine) -> c_int {
    code((|| {
        let runtime = runtime.given("runtime")?;
        let status = Alive(goroutine).given()?.status();
        if status != Status::Runnable {
            let text = format_args!("goroutine: it is {status:?}, and only a Runnable one is run");
            return Err(Failure::invalid(text));
        }
        // SAFETY: the header asks for an owned reference. Last: a failure takes none.
        let goroutine = unsafe { owned(goroutine)? };
        runtime.0.schedule(goroutine);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_set_transfer(
    runtime: Ref<RuntimeBox>,
    goroutine: Alive,
    words: *const usize,
    count: usize,
) -> c_int {
    code((|| {
        let (runtime, goroutine) = (runtime.given("runtime")?, goroutine.given()?);
        // SAFETY: the header asks for so many words.
        let words = unsafe { slice(words, count, "words")? };
        let words: Vec<Word> = words.iter().map(|word| Word::Reference(*word)).collect();
        runtime.0.set_transfer(goroutine, &words);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_take_transfer(
    runtime: Ref<RuntimeBox>,
    goroutine: Alive,
    into: *mut usize,
    capacity: usize,
    count: Out<'_, usize>,
) -> c_int {
    make(count, "count", || {
        let (runtime, goroutine) = (runtime.given("runtime")?, goroutine.given()?);
        let mut words = Vec::new();
        runtime.0.take_transfer(goroutine, &mut words);
        if words.len() > capacity || (into.is_null() && !words.is_empty()) {
            let references: Vec<Word> = words.iter().map(|word| Word::Reference(*word)).collect();
            runtime.0.set_transfer(goroutine, &references);
            let text = format_args!("there are {} words, and room for {capacity}", words.len());
            return Err(Failure::invalid(text));
        }
        if !words.is_empty() {
            // SAFETY: the header asks for room for so many words.
            unsafe { into.copy_from_nonoverlapping(words.as_ptr(), words.len()) };
        }
        Ok(words.len())
    })
}

/// A scheduler in C.
struct CSchedule {
    ready: extern "C" fn(*mut c_void, *const Goroutine),
    user: User,
}

impl Schedule for CSchedule {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        (self.ready)(self.user.pointer(), give(goroutine));
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_set_scheduler(
    runtime: Ref<RuntimeBox>,
    ready: Option<extern "C" fn(*mut c_void, *const Goroutine)>,
    user: *mut c_void,
) -> c_int {
    code((|| {
        let (runtime, ready) = (runtime.given("runtime")?, given(ready, "ready")?);
        runtime.0.set_scheduler(Arc::new(CSchedule { ready, user: User(user) }));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_live_goroutines(runtime: Ref<RuntimeBox>) -> usize {
    let runtime = runtime.get("stackmark_live_goroutines: runtime");
    runtime.map_or(0, |runtime| runtime.0.live_goroutines())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_traceback(
    runtime: Ref<RuntimeBox>,
    buffer: *mut c_char,
    capacity: usize,
) -> usize {
    let runtime = runtime.get("stackmark_traceback: runtime");
    let text = runtime.map(|runtime| traceback(&runtime.0)).unwrap_or_default();
    // SAFETY: the header asks for such a buffer.
    unsafe { put_text(&text, buffer, capacity) }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_frames_of(
    runtime: Ref<RuntimeBox>,
    goroutine: Alive,
    frames: *mut FrameTable,
    capacity: usize,
    count: Out<'_, usize>,
) -> c_int {
    make(count, "count", || {
        let (runtime, goroutine) = (runtime.given("runtime")?, goroutine.given()?);
        if capacity != 0 {
            check_array(frames, capacity, size_of::<FrameTable>(), "frames")?;
        }
        let found = runtime.0.frames(goroutine, capacity);
        let found = found.map_err(|error| Failure::new(WALK, error))?.unwrap_or_default();
        // SAFETY: the header asks for room for `capacity` frames, each with its size.
        unsafe { put_structs(frames, "frames", found.iter().map(FrameTable::new))? };
        Ok(found.len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_traceback_of(
    runtime: Ref<RuntimeBox>,
    goroutine: Alive,
    buffer: *mut c_char,
    capacity: usize,
    length: Out<'_, usize>,
) -> c_int {
    make(length, "length", || {
        let (runtime, goroutine) = (runtime.given("runtime")?, goroutine.given()?);
        let text = runtime.0.traceback_of(goroutine);
        let text = text.map_err(|error| Failure::new(WALK, error))?;
        // SAFETY: the header asks for such a buffer.
        Ok(unsafe { put_text(&text, buffer, capacity) })
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_goroutines(
    runtime: Ref<RuntimeBox>,
    into: *mut *const Goroutine,
    capacity: usize,
    count: Out<'_, usize>,
) -> c_int {
    make(count, "count", || {
        let runtime = runtime.given("runtime")?;
        if capacity != 0 {
            check_array(into, capacity, size_of::<*const Goroutine>(), "into")?;
        }
        let goroutines = runtime.0.goroutines();
        let count = goroutines.len();
        for (i, goroutine) in goroutines.into_iter().take(capacity).enumerate() {
            // SAFETY: the header asks for room for so many.
            unsafe { into.add(i).write(give(goroutine)) };
        }
        Ok(count)
    })
}
