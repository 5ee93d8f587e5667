//! The host of an engine's runtime.

use parking_lot::RwLock;
use stackmark::Collector;
use stackmark::mark_sweep::MarkSweep;
use stackmark::stack::{Caller, Goroutine, Host, NativeException};
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, OnceLock, Weak};

use crate::machine::{self, MachineData};

/// The host of an engine's runtime: it does the engine's part, then asks the embedder's own.
pub(crate) struct EngineHost {
    pub(crate) own: Box<dyn Host>,
    heap: Arc<MarkSweep>,
    collector: OnceLock<Weak<Collector<MarkSweep>>>,
    /// Landing pads by the return addresses of their calls.
    landing_pads: RwLock<HashMap<usize, usize>>,
    /// Results of goroutines that [`Engine::run`] waits for, by their numbers.
    results: RwLock<HashMap<u64, usize>>,
}

impl EngineHost {
    pub(crate) fn new(own: Box<dyn Host>, heap: Arc<MarkSweep>) -> EngineHost {
        EngineHost {
            own,
            heap,
            collector: OnceLock::new(),
            landing_pads: RwLock::default(),
            results: RwLock::default(),
        }
    }

    /// Sets the collector, once. The engine owns it.
    pub(crate) fn set_collector(&self, collector: &Arc<Collector<MarkSweep>>) {
        self.collector.set(Arc::downgrade(collector)).expect("an engine has one collector");
    }

    /// That of a native function's runtime.
    ///
    /// # Panics
    /// If the runtime is not an engine's.
    pub(crate) fn of<'c>(caller: &Caller<'c>) -> &'c EngineHost {
        caller.runtime().host::<EngineHost>().expect("the runtime of an engine")
    }

    pub(crate) fn collector(&self) -> Arc<Collector<MarkSweep>> {
        let collector = self.collector.get().and_then(Weak::upgrade);
        collector.expect("an engine outlives its goroutines")
    }

    pub(crate) fn add_landing_pads(&self, pads: &HashMap<usize, usize>) {
        self.landing_pads.write().extend(pads);
    }

    /// The result of this goroutine is wanted.
    pub(crate) fn await_result(&self, goroutine: u64) {
        self.results.write().insert(goroutine, 0);
    }

    /// The result of a goroutine that was awaited, and has ended.
    pub(crate) fn take_result(&self, goroutine: u64) -> usize {
        self.results.write().remove(&goroutine).expect("it was awaited")
    }

    pub(crate) fn landing_pad(&self, return_address: usize) -> Option<usize> {
        self.landing_pads.read().get(&return_address).copied()
    }
}

impl Host for EngineHost {
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> ! {
        self.own.stack_overflow(goroutine, limit)
    }

    fn fatal(&self, error: &dyn Error) -> ! {
        self.own.fatal(error)
    }

    fn uncaught(&self, goroutine: &Goroutine, exception: NativeException) -> NativeException {
        self.own.uncaught(goroutine, exception)
    }

    fn source(&self, pc: usize) -> Option<(String, u32)> {
        self.own.source(pc)
    }

    fn warn(&self, message: &str) {
        self.own.warn(message);
    }

    fn machine_attached(&self) -> usize {
        let word = self.own.machine_attached();
        let allocator = self.heap.allocator().unwrap_or_else(|error| self.own.fatal(&error));
        let stores = self.collector().write_barrier().buffer();
        machine::set(MachineData { allocator, stores, word })
    }

    fn machine_detached(&self, _slots: usize) {
        // SAFETY: the machine is detached: it runs no managed code any more.
        if let Some(data) = unsafe { machine::take() } {
            self.own.machine_detached(data.word);
        }
    }

    fn goroutine_exited(&self, goroutine: &Goroutine, result: usize) {
        if let Some(place) = self.results.write().get_mut(&goroutine.id()) {
            *place = result;
        }
        self.own.goroutine_exited(goroutine, result);
    }

    fn at_poll(&self, goroutine: &Goroutine) {
        self.own.at_poll(goroutine);
    }
}

/// A host that ends the process with a line where one must be given.
#[derive(Clone, Copy, Debug)]
pub struct DefaultHost;

impl Host for DefaultHost {
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> ! {
        eprintln!("goroutine {}: the stack exceeds {limit} bytes", goroutine.id());
        std::process::exit(2)
    }
}
