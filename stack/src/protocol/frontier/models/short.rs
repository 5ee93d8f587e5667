//! Models of short scans: a cycle continues the scan of the last one while the goroutine returns
//! through that scan's barriers.

use super::*;
use crate::protocol::dirty::Dirty;

const FRAMES: usize = 4;

/// A goroutine whose stack the first cycle has scanned whole.
struct Scanned {
    goroutine: Arc<Goroutine>,
    dirty: Dirty,
    /// The number of frames, while the goroutine stands still.
    count: UnsafeCell<usize>,
    /// The value of each frame at its last visit before the second cycle.
    seen: Vec<UnsafeCell<usize>>,
}

fn scanned(spacing: Spacing, chunk: u64) -> Arc<Scanned> {
    let g = goroutine(Status::Parked, FRAMES, chunk);
    {
        let mut held = g.status.hold(&g.scan).expect("it is parked");
        g.begin(&mut held.state, 1, spacing, false);
    }
    (0..FRAMES).for_each(|_| g.work(1, 1));
    assert!(g.scan.lock().is_complete());
    g.memory().visits.iter().for_each(|visits| visits.store(0, Ordering::Relaxed));
    let seen = (0..FRAMES).map(|_| UnsafeCell::new(0)).collect();
    Arc::new(Scanned {
        goroutine: g,
        dirty: Dirty::default(),
        count: UnsafeCell::new(FRAMES),
        seen,
    })
}

impl Scanned {
    /// The goroutine runs its youngest frame, returns, runs the next one, and parks.
    fn run_two_frames(&self, cycle: u64) {
        let g = &self.goroutine;
        g.status.ready();
        g.status.start_running(Status::Runnable, &g.scan);
        self.dirty.mark(cycle);
        // SAFETY: loom checks that no other thread is there.
        let count = self.count.with(|count| unsafe { *count });
        g.memory().run(count - 1);
        g.return_from(count - 1);
        g.memory().run(count - 2);
        // SAFETY: as above.
        self.count.with_mut(|place| unsafe { *place = count - 1 });
        g.status.stop(Status::Parked);
    }

    /// The second cycle begins its scan if the goroutine stands still. It continues cycle `kept`,
    /// or none if that is 0. Returns the frames that the scan must have visited in the end.
    fn begin_second(&self, kept: u64, spacing: Spacing) -> Vec<usize> {
        let g = &self.goroutine;
        let Ok(mut held) = g.status.hold(&g.scan) else { return Vec::new() };
        let scan = &mut *held.state;
        let memory = g.memory();
        // SAFETY: loom checks that no thread writes.
        let count = self.count.with(|count| unsafe { *count });
        let changed = |frame: &usize| {
            // SAFETY: as above.
            let read = |cell: &UnsafeCell<usize>| cell.with(|word| unsafe { *word });
            read(&memory.frames[*frame]) != read(&self.seen[*frame])
        };
        let changed: Vec<_> = (0..count).filter(|frame| kept == 0 || changed(frame)).collect();
        let at = position(count);
        if !scan.is_kept(kept) {
            scan.begin(&mut g.access(memory), 2, at, spacing, false);
        } else if self.dirty.is_dirty() {
            scan.begin_again(&mut g.access(memory), 2, at, spacing, false);
        } else {
            scan.keep(2);
            return changed;
        }
        self.dirty.clear();
        g.protect(scan, memory, at.depth);
        changed
    }

    fn end(&self, must: &[usize]) {
        let g = &self.goroutine;
        // SAFETY: loom checks that no thread writes.
        let count = self.count.with(|count| unsafe { *count });
        g.work(2, u64::MAX);
        let visits = g.memory().visits();
        assert!(
            must.iter().all(|frame| visits[*frame] == 1),
            "{must:?} have changed, {visits:?} were made"
        );
        assert!(visits.iter().all(|visits| *visits <= 1), "{visits:?}");
        let mut scan = g.scan.lock();
        scan.check(&View(g.memory()), &&*g.memory().table, count * WORD);
        scan.end(&g.pool);
        assert_eq!(scan.epoch(), 0, "the next goroutine with this record is scanned whole");
    }
}

/// The goroutine returns through barriers of the first cycle before, while and after the second
/// cycle scans what has changed.
fn returns_meet_a_short_scan(spacing: Spacing, chunk: u64, kept: u64) {
    bounded(3, move || {
        let s = scanned(spacing, chunk);
        let runs = s.clone();
        let thread = thread::spawn(move || {
            runs.run_two_frames(1);
            runs.run_two_frames(2);
        });
        let must = s.begin_second(kept, spacing);
        s.goroutine.work(2, 1);
        thread.join().unwrap();
        s.end(&must);
    });
}

model_and_twin!(
    loom_returns_meet_a_short_scan,
    loom_twin_of_a_short_scan_of_a_goroutine_that_does_not_say_that_it_has_run without DirtyMark,
    || for chunk in [1, 2] {
        returns_meet_a_short_scan(DOUBLING, chunk, 1);
    }
);

model_and_twin!(
    loom_returns_meet_a_short_scan_with_a_barrier_in_every_frame,
    loom_twin_of_a_short_scan_without_a_frontier without Frontier,
    || returns_meet_a_short_scan(Spacing::EveryFrame, 1, 1)
);

// A major cycle continues no scan: it visits every frame, whatever barriers lie there.
model_and_twin!(
    loom_returns_meet_the_scan_of_a_major_cycle,
    loom_twin_of_a_major_cycle_that_goes_on_from_the_last_one without Kept,
    || returns_meet_a_short_scan(DOUBLING, 1, 0)
);
