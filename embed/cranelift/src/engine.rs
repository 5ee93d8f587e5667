//! A runtime, its heap and its collector, set up for code of this crate.

use stackmark::mark_sweep::{self, HeapError, MarkSweep};
use stackmark::stack::{self, AttachError, Caller, Host, Left, Machine, Runtime, RuntimeError};
use stackmark::unwind::Code;
use stackmark::{Collector, Config, StartError};
use std::any::Any;
use std::sync::Arc;

use crate::barrier::Barrier;
use crate::error::{EntryError, ModuleError};
use crate::host::{DefaultHost, EngineHost};
use crate::identity::{FuncId, Identity};
use crate::machine;
use crate::module::{Module, Options};
use crate::program::Program;

/// How an [`Engine`] is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The stacks.
    pub stack: stack::Config,
    /// The heap.
    pub heap: mark_sweep::Options,
    /// The collector.
    pub collector: Config,
    /// Its modules.
    pub code: Options,
}

/// Why there is no engine, or why it does not run something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no heap.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// There is no runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The collector does not start.
    #[error(transparent)]
    Collector(#[from] StartError),
    /// The thread cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The program belongs to another engine, or is not registered with one.
    #[error("the program belongs to another engine")]
    OtherEngine,
    /// The function is not one to run, or there is no memory for a stack.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A goroutine has parked, and the engine has no scheduler that would run it again.
    #[error("goroutine {goroutine} has parked, and there is no scheduler")]
    Parked {
        /// The goroutine's number.
        goroutine: u64,
    },
}

/// A runtime, its heap and its collector. Natives of this crate find it by the runtime's host.
#[derive(Debug)]
pub struct Engine {
    identity: Identity,
    runtime: Arc<Runtime>,
    collector: Arc<Collector<MarkSweep>>,
    code: Options,
}

impl Engine {
    /// An engine with the [`DefaultHost`].
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn new(settings: Settings) -> Result<Engine, EngineError> {
        Engine::with_host(settings, Box::new(DefaultHost))
    }

    /// An engine with the embedder's own host. The word that its `machine_attached` returns is
    /// [`Engine::machine_word`]: the goroutine's machine word is the engine's.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn with_host(settings: Settings, own: Box<dyn Host>) -> Result<Engine, EngineError> {
        let heap = MarkSweep::new(&settings.heap)?;
        let host = EngineHost::new(own, heap.clone());
        let runtime = Runtime::new(settings.stack, Arc::new(Code::new()), Box::new(host))?;
        let collector = Collector::start(heap, runtime.clone(), &settings.collector)?;
        let collector = Arc::new(collector);
        let identity = Identity::new();
        let code = Options { max_frame: runtime.config().max_frame, ..settings.code };
        let engine = Engine { identity, runtime, collector, code };
        engine.engine_host().set_collector(&engine.collector);
        Ok(engine)
    }

    fn engine_host(&self) -> &EngineHost {
        self.runtime.host::<EngineHost>().expect("the runtime of an engine")
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// The collector.
    pub fn collector(&self) -> &Arc<Collector<MarkSweep>> {
        &self.collector
    }

    /// The heap.
    pub fn heap(&self) -> &Arc<MarkSweep> {
        self.collector.heap()
    }

    /// The embedder's own host, if it is of this type.
    pub fn host<T: Host>(&self) -> Option<&T> {
        let own: &dyn Any = &*self.engine_host().own;
        own.downcast_ref()
    }

    /// The word that the embedder's host gave for the calling thread's machine.
    ///
    /// # Panics
    /// If the thread is not a machine of an engine.
    pub fn machine_word() -> usize {
        machine::with(|data| data.word)
    }

    /// A module whose functions allocate from this heap and store by its write barrier.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn module(&self) -> Result<Module, ModuleError> {
        let barrier = Barrier::of(self.collector.write_barrier());
        Module::of(Some(self.identity), self.code.clone(), Some(barrier))
    }

    /// Places and registers a module of this engine. What the program does from then on is the
    /// front end's word.
    ///
    /// # Errors
    /// [`ModuleError`]; [`ModuleError::OtherEngine`] if the module was not made by
    /// [`Engine::module`] of this engine.
    ///
    /// # Safety
    /// The front end vouches for the code of the module, whatever plain words its exported
    /// functions are given:
    ///
    /// - It reads and writes memory that is there: objects within their sizes, slots within theirs,
    ///   words of the embedder's. Native functions get the arguments that they ask for.
    /// - Each value is of its kind. A reference is one to this engine's heap, or 0; it is loaded by
    ///   [`load_reference`](crate::Function::load_reference) or
    ///   [declared](crate::Function::reference), and stored into objects by
    ///   [`store_reference`](crate::Function::store_reference). Descriptors are of this heap.
    /// - Code that Cranelift's builder makes keeps contracts C1 to C6 of [`stackmark::stack`]: no
    ///   call leaves managed code but those of [`Function`](crate::Function), and the pinned
    ///   register stays as it is. A debug build checks some of it: see
    ///   [`Options::checked`](crate::Options::checked).
    /// - Native code that calls managed code back keeps no address in the goroutine's stack over
    ///   that.
    pub unsafe fn finish(&self, module: Module) -> Result<Arc<Program>, ModuleError> {
        if module.engine() != Some(self.identity) {
            return Err(ModuleError::OtherEngine);
        }
        let mut program = module.finish(self.runtime.code())?;
        program.engine = Some(self.identity);
        self.engine_host().add_landing_pads(&program.landing_pads);
        Ok(Arc::new(program))
    }

    /// Runs an [exported](Module::export) function of at most one plain parameter on a goroutine of
    /// its own, on this thread, to its end. Returns its first result, which is plain, or 0. The
    /// words are as for [`Program::spawn`].
    ///
    /// # Errors
    /// [`EngineError::OtherEngine`], [`EngineError::Entry`], [`EngineError::Attach`],
    /// [`EngineError::Parked`].
    pub fn run(
        &self,
        program: &Program,
        function: FuncId,
        argument: usize,
    ) -> Result<usize, EngineError> {
        if program.engine != Some(self.identity) {
            return Err(EngineError::OtherEngine);
        }
        let start = program.plain_start(function)?;
        let machine = Machine::attach(&self.runtime)?;
        // SAFETY: `finish` has registered the code with this runtime, and its caller vouches for
        // it. The argument is plain, as the parameter is.
        let goroutine = unsafe { self.runtime.spawn(start, argument) };
        let mut goroutine = goroutine.map_err(EntryError::Stack)?;
        let (id, host) = (goroutine.id(), self.engine_host());
        host.await_result(id);
        loop {
            match machine.run(goroutine) {
                Left::Exited => return Ok(host.take_result(id)),
                Left::Yielded(again) => goroutine = again,
                Left::Parked => {
                    host.take_result(id);
                    return Err(EngineError::Parked { goroutine: id });
                }
            }
        }
    }

    /// Calls an [exported](Module::export) function of plain parameters and results from native
    /// code: from within a foreign call, on its goroutine; or on a thread that the runtime has
    /// never seen: see [`Runtime::call_in`]. Returns its first result, or 0. The words are as for
    /// [`Program::spawn`].
    ///
    /// # Errors
    /// [`EngineError::OtherEngine`], [`EngineError::Entry`].
    pub fn call_in(
        &self,
        program: &Program,
        function: FuncId,
        arguments: &[usize],
    ) -> Result<usize, EngineError> {
        if program.engine != Some(self.identity) {
            return Err(EngineError::OtherEngine);
        }
        let mut words = program.plain_words(function, arguments)?;
        let call = |caller: Caller<'_>| {
            // SAFETY: `finish` has registered the code with this runtime, and its caller vouches
            // for it, and for the native code below. The words are plain, as the parameters are.
            unsafe { program.call_back(caller, function, &mut words) }
        };
        self.runtime.call_in(call).map_err(EntryError::CallIn)??;
        Ok(words.get(arguments.len()).copied().unwrap_or(0))
    }
}
