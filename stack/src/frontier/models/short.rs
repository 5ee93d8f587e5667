//! Models of short scans: a cycle goes on from the scan of the last one, whose barriers the
//! goroutine returns through meanwhile.

use super::*;
use crate::ran::Ran;

const FRAMES: usize = 4;

/// A goroutine whose stack the first cycle has scanned to its end.
struct Scanned {
    goroutine: Arc<Goroutine>,
    ran: Ran,
    /// How many frames are there, while it stands still.
    count: UnsafeCell<usize>,
    /// What each frame was at its last visit before the second cycle.
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
    Arc::new(Scanned { goroutine: g, ran: Ran::default(), count: UnsafeCell::new(FRAMES), seen })
}

impl Scanned {
    /// It runs for a while: its youngest frame and, after a return, the next one; then it parks.
    fn run_two_frames(&self, cycle: u64) {
        let g = &self.goroutine;
        g.status.ready();
        g.status.start_running(Status::Runnable, &g.scan);
        self.ran.note(cycle);
        // SAFETY: loom checks that nobody else is there.
        let count = self.count.with(|count| unsafe { *count });
        g.memory().run(count - 1);
        g.return_from(count - 1);
        g.memory().run(count - 2);
        // SAFETY: as above.
        self.count.with_mut(|place| unsafe { *place = count - 1 });
        g.status.stop(Status::Parked);
    }

    /// The second cycle begins its scan if the goroutine stands still; it goes on from cycle
    /// `kept`, or from none. Returns the frames that it must have visited in the end.
    fn begin_second(&self, kept: u64, spacing: Spacing) -> Vec<usize> {
        let g = &self.goroutine;
        let Ok(mut held) = g.status.hold(&g.scan) else { return Vec::new() };
        let scan = &mut *held.state;
        let memory = g.memory();
        // SAFETY: loom checks that nobody writes.
        let count = self.count.with(|count| unsafe { *count });
        let changed = |frame: &usize| {
            // SAFETY: as above.
            let read = |cell: &UnsafeCell<usize>| cell.with(|word| unsafe { *word });
            read(&memory.frames[*frame]) != read(&self.seen[*frame])
        };
        let changed: Vec<_> = (0..count).filter(|frame| kept == 0 || changed(frame)).collect();
        let at = position(count);
        if !scan.is_kept(kept) {
            scan.begin(&mut g.means(memory), 2, at, spacing, false);
        } else if self.ran.has_run() {
            scan.begin_again(&mut g.means(memory), 2, at, spacing, false);
        } else {
            scan.keep(2);
            return changed;
        }
        self.ran.forget();
        g.protect(scan, memory, at.depth);
        changed
    }

    fn end(&self, must: &[usize]) {
        let g = &self.goroutine;
        // SAFETY: loom checks that nobody writes.
        let count = self.count.with(|count| unsafe { *count });
        g.work(2, u64::MAX);
        let visits = g.memory().visits();
        assert!(
            must.iter().all(|frame| visits[*frame] == 1),
            "{must:?} have changed, {visits:?} were made"
        );
        assert!(visits.iter().all(|visits| *visits <= 1), "{visits:?}");
        let mut scan = g.scan.lock();
        scan.check(&View(g.memory()), &g.memory(), count * WORD);
        scan.end(&g.pool);
        assert_eq!(scan.epoch(), 0, "whoever gets the record is scanned whole");
    }
}

/// The goroutine returns through barriers of the first cycle before, while and after the second one
/// scans what has changed.
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
    loom_twin_of_a_short_scan_of_a_goroutine_that_does_not_say_that_it_has_run without RanNote,
    || for chunk in [1, 2] {
        returns_meet_a_short_scan(DOUBLING, chunk, 1);
    }
);

model_and_twin!(
    loom_returns_meet_a_short_scan_with_a_barrier_in_every_frame,
    loom_twin_of_a_short_scan_without_a_frontier without Frontier,
    || returns_meet_a_short_scan(Spacing::EveryFrame, 1, 1)
);

// The marks are gone: everything is visited, whatever barriers lie there.
model_and_twin!(
    loom_returns_meet_the_scan_of_a_major_cycle,
    loom_twin_of_a_major_cycle_that_goes_on_from_the_last_one without Kept,
    || returns_meet_a_short_scan(DOUBLING, 1, 0)
);
