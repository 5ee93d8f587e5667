//! Models of invariant 12: a goroutine pushes and returns while a worker visits its frozen frames.
//! What the stopped world would visit stays within the bound, and nothing else has changed.

use super::*;
use crate::protocol::frontier::young::YoungBound;

const BOUND: YoungBound = YoungBound { most: 3 * WORD, step: WORD };
const SPACING: Spacing = Spacing::Doubling(WORD);

/// A goroutine that runs, with `count` frames.
struct Runner {
    goroutine: Arc<Goroutine>,
    count: usize,
    /// The depth at which it polls.
    bound: usize,
    /// The most bytes of the young part so far.
    most: usize,
}

impl Runner {
    /// The goroutine, at a poll, begins its scan.
    fn begin(goroutine: &Arc<Goroutine>, count: usize) -> Runner {
        let g = goroutine.clone();
        let bound = {
            let (mut scan, memory) = (g.scan.lock(), g.memory());
            let at = position(count);
            scan.begin(&mut g.access(memory), 1, at, SPACING, false);
            g.protect(&mut scan, memory, at.depth);
            scan.polls_at(at.depth, BOUND)
        };
        Runner { goroutine: g, count, bound, most: 0 }
    }

    fn push(&mut self) {
        let g = &self.goroutine;
        let (memory, at) = (g.memory(), position(self.count));
        if at.depth >= self.bound {
            let mut scan = g.scan.lock();
            scan.catch_up(&mut g.access(memory), at, SPACING, false, &mut Walk::new(memory, at))
                .unwrap();
            self.bound = scan.polls_at(at.depth, BOUND);
        }
        View(memory).write((self.count + 1) * WORD, return_address(self.count), false);
        memory.run(self.count);
        self.count += 1;
        self.measure();
    }

    fn pop(&mut self) {
        let (g, depth) = (&self.goroutine, self.count * WORD);
        let memory = g.memory();
        let found = View(memory).read(depth, false);
        self.count -= 1;
        if found >= STUB_WORD {
            let (mut scan, at) = (g.scan.lock(), position(self.count));
            scan.hit(&mut g.access(memory), depth, (found - STUB_WORD) as u32)
                .expect("a known barrier");
            g.protect(&mut scan, memory, at.depth);
            scan.follow(&mut g.access(memory), at, BOUND.step, || Walk::new(memory, at)).unwrap();
            self.bound = scan.polls_at(at.depth, BOUND);
        }
        assert_eq!(View(memory).read(depth, false), return_address(self.count));
        memory.run(self.count - 1);
        self.measure();
    }

    /// How deep the oldest frame of the young part lies.
    fn limit(&self) -> usize {
        self.goroutine.scan.lock().limit().map_or(0, |(depth, _)| depth)
    }

    fn measure(&mut self) {
        self.most = self.most.max(self.count * WORD - self.limit());
    }

    /// The world has stopped: the frames outside of the young part are as they were when they were
    /// visited.
    fn stop(&self) {
        let g = &self.goroutine;
        g.work(1, u64::MAX);
        let limit = self.limit();
        let memory = g.memory();
        for frame in (0..self.count).take_while(|frame| (frame + 1) * WORD < limit) {
            // SAFETY: loom checks that no thread writes.
            let now = memory.frames[frame].with(|frame| unsafe { *frame });
            assert_eq!(memory.seen[frame].load(Ordering::Relaxed), now, "frame {frame}");
        }
        let mut scan = g.scan.lock();
        scan.check(&View(memory), &&*memory.table, self.count * WORD);
        scan.end(&g.pool);
    }
}

/// A goroutine of three frames pushes `up` frames, returns from `down` and pushes two more, while a
/// worker visits the three.
fn a_goroutine_pushes_and_returns(up: usize, down: usize) {
    bounded(2, move || {
        let frames = 3 + up.max(up + 2 - down);
        let g = goroutine(Status::Running, frames, 1);
        let mut runner = Runner::begin(&g, 3);
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, 1)));
        (0..up).for_each(|_| runner.push());
        (0..down).for_each(|_| runner.pop());
        (0..2).for_each(|_| runner.push());
        thread.join().unwrap();
        assert!(runner.most <= BOUND.most + WORD, "{} bytes", runner.most);
        runner.stop();
        assert_eq!(g.pool.available(), frames, "every stub came back");
    });
}

model_and_twin!(
    loom_a_goroutine_that_pushes_catches_up,
    loom_twin_of_a_push_without_a_poll without YoungPoll,
    || for up in [2, 4, 6] {
        a_goroutine_pushes_and_returns(up, 1);
    }
);

model_and_twin!(
    loom_a_barrier_follows_a_goroutine_that_returns,
    loom_twin_of_returns_without_a_barrier_that_follows without Follow,
    || {
        a_goroutine_pushes_and_returns(5, 6);
        a_goroutine_pushes_and_returns(9, 7);
    }
);

/// The same goroutine on a record whose pool has no stub left: the way to unvisited frames stays
/// blocked, and all that has changed is in the young part, whatever its size.
#[test]
fn loom_a_goroutine_without_stubs_pushes_and_returns() {
    bounded(2, || {
        let (table, _) = table(9);
        let g = Arc::new(with_pool(Status::Running, 9, 1, &table, &Arc::new(StubPool::new(0..1))));
        let mut runner = Runner::begin(&g, 3);
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, 1)));
        (0..6).for_each(|_| runner.push());
        (0..7).for_each(|_| runner.pop());
        (0..2).for_each(|_| runner.push());
        thread.join().unwrap();
        runner.stop();
    });
}
