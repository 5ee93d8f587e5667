//! The collector, its write barrier, and its statistics.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use stackmark::handle::Handles;
use stackmark::mark_sweep::{DescriptorId, MarkSweep};
use stackmark::weak::WeakReferences;
use stackmark::write_barrier::{BarrierBuffer, Kind, WriteBarrier};
use stackmark::{Collector, Config, Generational, StartError};

use crate::abi::{Failure, IN_USE, INVALID, Out, SYSTEM, User, Versioned, code, make, read, write};
use crate::caller::caller;
use crate::heap::{AllocatorBox, HeapBox};
use crate::heap_table::{HeapFunctions, TableHeap};
use crate::machine::{inside, need_inside};
use crate::numbers::{BARRIER_HYBRID, BARRIER_INSERTION};
use crate::object::{Owned, Ref, kind};
use crate::runtime::RuntimeBox;
use crate::statistics::StatisticsTable;

/// A collector over one of the heaps.
#[derive(Debug)]
enum Over {
    Default(Collector<MarkSweep>),
    Table(Collector<TableHeap>),
}

/// Does the same with either.
macro_rules! each {
    ($collector:expr, $name:ident => $what:expr) => {
        match &$collector.over {
            Over::Default($name) => $what,
            Over::Table($name) => $what,
        }
    };
}

/// `stackmark_collector`.
#[derive(Debug)]
pub(crate) struct CollectorBox {
    over: Over,
}

kind!(CollectorBox = "stackmark_collector");

impl CollectorBox {
    pub(crate) fn handles(&self) -> &Arc<Handles> {
        each!(self, collector => collector.handles())
    }

    pub(crate) fn weak(&self) -> &Arc<WeakReferences> {
        each!(self, collector => collector.weak_references())
    }

    fn barrier(&self) -> &Arc<WriteBarrier> {
        each!(self, collector => collector.write_barrier())
    }
}

/// `stackmark_barrier`.
#[derive(Debug)]
pub(crate) struct BarrierBox(BarrierBuffer);

kind!(BarrierBox = "stackmark_barrier");

impl Ref<BarrierBox> {
    /// The buffer, on a thread that counts as running: the collector empties the buffers of others.
    fn used(&self, argument: &str, function: &str) -> &'static BarrierBuffer {
        let barrier = self.needed(argument);
        need_inside(function);
        &barrier.0
    }
}

/// `stackmark_collector_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollectorConfigTable {
    pub(crate) size: usize,
    pub(crate) workers: usize,
    pub(crate) memory_limit: usize,
    pub(crate) nursery: usize,
    pub(crate) percent: u32,
    pub(crate) write_barrier: u32,
    pub(crate) generational: u32,
    pub(crate) whole_scans: u32,
    pub(crate) verify: u32,
    pub(crate) collect_every_poll: u32,
}

// SAFETY: as the trait asks.
unsafe impl Versioned for CollectorConfigTable {}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let code = match error {
            StartError::Heap(_) | StartError::Runtime(_) => IN_USE,
            StartError::Thread(_) => SYSTEM,
            _ => INVALID,
        };
        Failure::new(code, error)
    }
}

fn config(table: &CollectorConfigTable) -> Result<Config, Failure> {
    let mut config = Config {
        memory_limit: (table.memory_limit != 0).then_some(table.memory_limit),
        write_barrier: match table.write_barrier {
            BARRIER_INSERTION => Kind::Insertion,
            BARRIER_HYBRID => Kind::Hybrid,
            other => {
                return Err(Failure::invalid(format_args!("config: write_barrier is {other}")));
            }
        },
        verify: table.verify != 0,
        collect_every_poll: table.collect_every_poll != 0,
        ..Config::default()
    };
    if table.workers != 0 {
        config.workers = table.workers;
    }
    match table.percent {
        0 => {}
        u32::MAX => config.percent = None,
        percent => config.percent = Some(percent),
    }
    if table.generational != 0 {
        let mut generational =
            Generational { short_scans: table.whole_scans == 0, ..Generational::default() };
        if table.nursery != 0 {
            generational.nursery = table.nursery;
        }
        config.generational = Some(generational);
    }
    Ok(config)
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_collector_start(
    runtime: Ref<RuntimeBox>,
    heap: Ref<HeapBox>,
    table: *const CollectorConfigTable,
    out: Out<'_, Owned<CollectorBox>>,
) -> c_int {
    make(out, "out", || {
        let (runtime, heap) = (runtime.given("runtime")?, heap.given("heap")?);
        // SAFETY: the header asks for such a struct.
        let config = config(&unsafe { read(table, "config")? })?;
        let collector = Collector::start(heap.0.clone(), runtime.0.clone(), &config)?;
        Ok(Owned::new(CollectorBox { over: Over::Default(collector) }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_collector_start_on(
    runtime: Ref<RuntimeBox>,
    functions: *const HeapFunctions,
    table: *const CollectorConfigTable,
    out: Out<'_, Owned<CollectorBox>>,
) -> c_int {
    make(out, "out", || {
        let runtime = runtime.given("runtime")?;
        // SAFETY: the header asks for such structs.
        let (functions, table) = unsafe { (read(functions, "heap")?, read(table, "config")?) };
        let heap = Arc::new(TableHeap::new(&functions)?);
        let collector = Collector::start(heap, runtime.0.clone(), &config(&table)?)?;
        Ok(Owned::new(CollectorBox { over: Over::Table(collector) }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_collector_stop(collector: Owned<CollectorBox>) {
    drop(collector.take("stackmark_collector_stop: collector"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_collect(collector: Ref<CollectorBox>) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        if inside().is_ok() {
            let text = "a collection waits for this thread, which counts as running";
            return Err(Failure::invalid(text));
        }
        each!(collector, collector => collector.collect());
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_request_collection(
    collector: Ref<CollectorBox>,
    is_minor: c_int,
    done: Option<extern "C" fn(*mut c_void)>,
    user: *mut c_void,
) -> c_int {
    code((|| {
        let (collector, user) = (collector.given("collector")?, User(user));
        let done = move || {
            if let Some(done) = done {
                done(user.pointer());
            }
        };
        each!(collector, collector => match is_minor {
            0 => collector.request(done),
            _ => collector.request_minor(done),
        });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_allocate(
    collector: Ref<CollectorBox>,
    allocator: Ref<AllocatorBox>,
    descriptor: u32,
    bytes: usize,
    out: Out<'_, usize>,
) -> c_int {
    make(out, "out", || {
        let allocator = &allocator.given("allocator")?.0;
        let Over::Default(collector) = &collector.given("collector")?.over else {
            return Err(Failure::invalid("the collector's heap is not the library's"));
        };
        // SAFETY: used within this function.
        let caller = unsafe { caller()? };
        let descriptor = DescriptorId::from_index(descriptor);
        Ok(collector.allocate(caller, allocator, descriptor, bytes)?.address())
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_admit(collector: Ref<CollectorBox>) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        let inside = inside()?;
        Ok(each!(collector, collector => {
            use stackmark::heap::Heap;
            collector.heap().owner().admit(&inside)
        })?)
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_handed_out(collector: Ref<CollectorBox>, bytes: usize) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        let inside = inside()?;
        each!(collector, collector => {
            use stackmark::heap::Heap;
            collector.heap().owner().handed_out(&inside, bytes);
        });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_reached_trigger(collector: Ref<CollectorBox>) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        each!(collector, collector => {
            use stackmark::heap::Heap;
            collector.heap().owner().reached_trigger();
        });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_add_globals(collector: Ref<CollectorBox>, from: usize, to: usize) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        if from > to || !from.is_multiple_of(size_of::<usize>()) {
            let text = format_args!("the words from {from:#x} to {to:#x} are no globals");
            return Err(Failure::invalid(text));
        }
        // SAFETY: the header asks for mapped words.
        each!(collector, collector => unsafe { collector.add_globals(from..to) });
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_barrier_flag(collector: Ref<CollectorBox>) -> usize {
    let collector = collector.get("stackmark_barrier_flag: collector");
    collector.map_or(0, |collector| collector.barrier().flag_address())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_barrier_new(
    collector: Ref<CollectorBox>,
    out: Out<'_, Owned<BarrierBox>>,
) -> c_int {
    make(out, "out", || {
        Ok(Owned::new(BarrierBox(collector.given("collector")?.barrier().buffer())))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_barrier_free(barrier: Owned<BarrierBox>) {
    drop(barrier.take("stackmark_barrier_free: barrier"));
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_store(barrier: Ref<BarrierBox>, word: usize, to: usize) {
    barrier.used("stackmark_store: barrier", "stackmark_store").store(word, to);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_shade(barrier: Ref<BarrierBox>, word: usize) {
    barrier.used("stackmark_shade: barrier", "stackmark_shade").shade(word);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_shade_overwritten(barrier: Ref<BarrierBox>, word: usize) {
    barrier
        .used("stackmark_shade_overwritten: barrier", "stackmark_shade_overwritten")
        .shade_overwritten(word);
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_get_statistics(
    collector: Ref<CollectorBox>,
    statistics: *mut StatisticsTable,
) -> c_int {
    code((|| {
        let collector = collector.given("collector")?;
        let table = StatisticsTable::new(&each!(collector, collector => collector.statistics()));
        // SAFETY: the header asks for such a struct.
        unsafe { write(statistics, "statistics", table) }
    })())
}
