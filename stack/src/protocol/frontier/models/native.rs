//! Models of native stacks: an anchor says where the managed frames stand, and what is watched says
//! where a native call that comes back has something to do.

use super::*;

/// Frames 0 and 1 are managed, and 1 has called native code. Frame 2 is the entry that this code
/// has made, and 3 is managed.
const FRAMES: usize = 4;
const ENTRY: usize = 2;

/// A goroutine on a native stack.
struct Native {
    goroutine: Goroutine,
    /// How many frames are below the anchor. The thread writes it as it enters managed code and as
    /// that calls native code; a holder reads it.
    anchor: UnsafeCell<usize>,
    /// The word that a native call compares, as a depth; 0: nothing is watched. Relaxed: as in the
    /// header, the status orders its holder's stores.
    watch: AtomicUsize,
    /// The depth of the native call that has entered managed code as it ran; 0: none.
    entered: AtomicUsize,
}

impl Native {
    /// With so many of the frames, InForeign at the youngest.
    fn new(frames: usize) -> Arc<Native> {
        let (table, pool) = table(FRAMES as u32);
        let mut goroutine = with_pool(Status::Foreign, FRAMES, 1, &table, &pool);
        goroutine.memory[0].callback = Some(ENTRY);
        Arc::new(Native {
            goroutine,
            anchor: UnsafeCell::new(frames),
            watch: AtomicUsize::new(0),
            entered: AtomicUsize::new(0),
        })
    }

    fn set_anchor(&self, frames: usize) {
        // SAFETY: loom checks that no other thread is there.
        self.anchor.with_mut(|anchor| unsafe { *anchor = frames });
    }

    /// The owner has changed the scan.
    fn watch(&self, scan: &StackScan) {
        let entered = Some(self.entered.load(Ordering::Relaxed)).filter(|depth| *depth != 0);
        self.watch.store(scan.watched(entered).unwrap_or(0), Ordering::Relaxed);
    }

    /// A holder scans from the anchor, and a worker goes on. Returns whether it was held.
    fn scan(&self) -> bool {
        let g = &self.goroutine;
        let held = match g.status.hold(&g.scan) {
            Ok(mut held) => {
                // SAFETY: loom checks that no other thread is there.
                let at = position(self.anchor.with(|anchor| unsafe { *anchor }));
                let (memory, scan) = (g.memory(), &mut *held.state);
                scan.begin(&mut g.access(memory), 1, at, DOUBLING, true);
                g.protect(scan, memory, at.depth);
                self.watch(scan);
                true
            }
            Err(_) => false,
        };
        g.work(1, 1);
        held
    }

    /// The native call at which the thread stands returns to its managed caller, whose stack
    /// pointer is at `depth`.
    fn come_back(&self, depth: usize) {
        self.set_anchor(0);
        if self.watch.load(Ordering::Relaxed) > depth && !left_out(LeftOut::Watch) {
            let (g, mut scan) = (&self.goroutine, self.goroutine.scan.lock());
            self.entered.store(0, Ordering::Relaxed);
            g.protect(&mut scan, g.memory(), depth);
            self.watch(&scan);
        }
    }

    /// Runs managed frames, the youngest first, and returns from them.
    fn run(&self, frames: std::ops::Range<usize>) {
        for frame in frames.rev() {
            self.goroutine.memory().run(frame);
            self.goroutine.return_from(frame);
        }
    }

    fn end(&self) {
        self.goroutine.scan.lock().end(&self.goroutine.pool);
        self.goroutine.status.stop(Status::Dead);
    }
}

/// The native call below the entry has entered managed code as it ran, so nothing but what is
/// watched tells of its return. The thread comes back from a foreign call on top while it is
/// scanned.
fn a_native_call_that_has_entered_returns_while_its_stack_is_scanned() {
    bounded(3, || {
        let native = Native::new(FRAMES);
        native.entered.store(ENTRY * WORD + 1, Ordering::Relaxed);
        let thread = {
            let native = native.clone();
            thread::spawn(move || native.scan())
        };
        let g = &native.goroutine;
        g.status.start_running(Status::Foreign, &g.scan);
        native.come_back(FRAMES * WORD);
        native.run(ENTRY + 1..FRAMES);
        // Out of the entry: its native caller has the anchor again, and returns.
        native.set_anchor(ENTRY);
        native.come_back(ENTRY * WORD);
        native.run(0..ENTRY);
        native.end();
        let held = thread.join().unwrap();
        assert_eq!(g.memory().visits(), vec![usize::from(held); FRAMES]);
        assert_eq!(g.pool.available(), FRAMES, "every stub came back");
    });
}

model_and_twin!(
    loom_a_native_call_that_has_entered_returns_while_its_stack_is_scanned,
    loom_twin_of_a_native_call_that_compares_nothing without Watch,
    a_native_call_that_has_entered_returns_while_its_stack_is_scanned
);

/// Native code in a foreign call enters managed code while a holder scans from the anchor, and
/// leaves it again.
fn a_thread_enters_while_it_is_scanned() {
    bounded(3, || {
        let native = Native::new(ENTRY);
        let thread = {
            let native = native.clone();
            thread::spawn(move || native.scan())
        };
        let (g, depth) = (&native.goroutine, ENTRY * WORD);
        g.status.start_running(Status::Foreign, &g.scan);
        // No lock: the holder may be one that walks outside of cycles.
        native.set_anchor(0);
        native.run(ENTRY + 1..FRAMES);
        native.set_anchor(ENTRY);
        g.status.stop(Status::Foreign);
        // The foreign call ends, and has called back.
        g.status.start_running(Status::Foreign, &g.scan);
        g.protect(&mut g.scan.lock(), g.memory(), depth);
        native.come_back(depth);
        native.run(0..ENTRY);
        native.end();
        let held = thread.join().unwrap();
        let visits = g.memory().visits();
        assert_eq!(visits[..ENTRY], [usize::from(held); ENTRY]);
        assert_eq!(visits[ENTRY..], [0; FRAMES - ENTRY], "they are younger than the anchor");
        assert_eq!(g.pool.available(), FRAMES, "every stub came back");
    });
}

model_and_twin!(
    loom_a_thread_enters_while_it_is_scanned,
    loom_twin_of_a_thread_that_enters_and_is_not_held without Held,
    a_thread_enters_while_it_is_scanned
);
