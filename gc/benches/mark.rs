//! Marking speed against the machine's memory bandwidth.
//!
//! Run it with `cargo bench -p stackmark --bench mark [-- --quick]`. One and two workers mark
//! graphs of small objects in several shapes, with nothing else running, on the system's usual
//! pages and on huge ones. One and two threads read as much memory from end to end. The last lines
//! are of the form `figure NAME VALUE UNIT`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use stackmark::mark_sweep::{Allocator, Descriptor, DescriptorId, MarkSweep, Options};
use stackmark::stack::{self, Goroutine, Host, Inside, Machine, Runtime};
use stackmark::unwind::Code;
use stackmark::{Collector, Config};

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

struct NoGoroutines;

impl Host for NoGoroutines {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("a stack of {limit} bytes, without goroutines")
    }
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// Builds graphs of objects.
struct Graph<'a> {
    inside: Inside<'a>,
    allocator: &'a Allocator,
    references: DescriptorId,
    leaves: DescriptorId,
}

impl Graph<'_> {
    fn object(&self, words: usize) -> usize {
        self.allocator
            .allocate(&self.inside, self.references, words * WORD)
            .expect("room")
            .address()
    }

    fn link(&self, from: usize, word: usize, to: usize) {
        // SAFETY: `word` lies in the object, which only this thread knows.
        unsafe { ((from + word * WORD) as *mut usize).write(to) }
    }

    /// A binary tree, laid out in depth-first order.
    fn tree(&self, objects: usize) -> usize {
        let root = self.object(2);
        let rest = objects - 1;
        if rest > 0 {
            self.link(root, 0, self.tree(rest.div_ceil(2)));
        }
        if rest > 1 {
            self.link(root, 1, self.tree(rest / 2));
        }
        root
    }

    /// A table of lists, of ten nodes each on average, with the nodes of all lists mixed in memory.
    fn lists(&self, objects: usize) -> usize {
        let lists = objects / 10;
        let table = self.object(lists);
        let mut heads = vec![0; lists];
        let mut random = Random(1);
        for _ in 0..objects {
            let at = random.below(lists);
            let node = self.object(3);
            self.link(node, 0, heads[at]);
            heads[at] = node;
        }
        heads.iter().enumerate().for_each(|(at, head)| self.link(table, at, *head));
        table
    }

    /// A table of objects, each with four references to random others.
    fn mesh(&self, objects: usize) -> usize {
        let table = self.object(objects);
        let all: Vec<usize> = (0..objects).map(|_| self.object(4)).collect();
        let mut random = Random(2);
        for (at, object) in all.iter().enumerate() {
            self.link(table, at, all[random.below(objects)]);
            (0..4).for_each(|word| self.link(*object, word, all[random.below(objects)]));
        }
        table
    }

    /// A table of objects without references, in the order of allocation.
    fn leaves(&self, objects: usize) -> usize {
        let table = self.object(objects);
        for at in 0..objects {
            let leaf = self.allocator.allocate(&self.inside, self.leaves, 32).expect("room");
            self.link(table, at, leaf.address());
        }
        table
    }
}

/// Marks the graph that `build` makes, on huge pages or not. Returns the objects, the bytes and the
/// seconds of the fastest of `cycles` cycles.
fn mark(
    workers: usize,
    cycles: usize,
    huge_pages: bool,
    build: impl Fn(&Graph<'_>) -> usize,
) -> (u64, u64, f64) {
    let code = Arc::new(Code::new());
    let runtime =
        Runtime::new(stack::Config::default(), code, Box::new(NoGoroutines)).expect("a runtime");
    let heap =
        MarkSweep::new(&Options { huge_pages, ..Options::default() }).expect("address space");
    let config = Config { workers, percent: None, ..Config::default() };
    let collector = Collector::start(heap.clone(), runtime, &config).expect("threads");
    let allocator = heap.allocator().expect("address space");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let leaves = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let machine = Machine::attach(collector.runtime()).expect("a new thread");
    let root = machine.inside(|inside| {
        let graph = Graph { inside, allocator: &allocator, references, leaves };
        collector.handles().create(build(&graph))
    });
    (0..=cycles).for_each(|_| collector.collect());
    let cycles = collector.statistics().cycles_detail;
    let best = cycles[1..].iter().min_by_key(|cycle| cycle.mark_ns).expect("a cycle");
    drop(root);
    (best.objects_marked, best.bytes_marked, best.mark_ns as f64 / 1e9)
}

/// Bytes a second that `threads` threads read, each from memory of its own.
fn bandwidth(threads: usize, bytes: usize) -> f64 {
    let words: Vec<u64> = (0..bytes as u64 / 8).collect();
    let part = words.len() / threads;
    let best = (0..5).map(|_| {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(move || black_box(part.iter().fold(0, |sum: u64, word| sum ^ word)));
            }
        });
        begun.elapsed().as_secs_f64()
    });
    bytes as f64 / best.fold(f64::MAX, f64::min)
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let (objects, cycles) = if quick { (50_000, 2) } else { (2_000_000, 5) };
    let read: Vec<f64> =
        [1, 2].map(|threads| bandwidth(threads, if quick { 16 << 20 } else { 512 << 20 })).into();
    println!(
        "streaming read: {:.1} GB/s by one thread, {:.1} by two",
        read[0] / 1e9,
        read[1] / 1e9
    );
    println!(
        "{:<8} {:<6} {:>7} {:>14} {:>12} {:>10}",
        "graph", "pages", "workers", "million/s", "MB/s", "of read"
    );
    let mut figures = vec![
        ("read_1".to_owned(), read[0] / 1e6, "MB/s"),
        ("read_2".to_owned(), read[1] / 1e6, "MB/s"),
    ];
    type Build = fn(&Graph<'_>, usize) -> usize;
    let graphs: [(&str, Build); 4] = [
        ("tree", |graph, objects| graph.tree(objects)),
        ("lists", |graph, objects| graph.lists(objects)),
        ("mesh", |graph, objects| graph.mesh(objects)),
        ("leaves", |graph, objects| graph.leaves(objects)),
    ];
    let pages = [("", "usual", false), ("huge_", "huge", true)];
    for ((name, build), (prefix, pages, huge)) in
        pages.iter().flat_map(|pages| graphs.map(|graph| (graph, *pages)))
    {
        let mut speeds = Vec::new();
        for workers in [1, 2] {
            let (objects, bytes, seconds) =
                mark(workers, cycles, huge, |graph| build(graph, objects));
            let (objects, bytes) = (objects as f64 / seconds, bytes as f64 / seconds);
            let share = bytes / read[workers - 1];
            println!(
                "{name:<8} {pages:<6} {workers:>7} {:>14.1} {:>12.0} {share:>10.3}",
                objects / 1e6,
                bytes / 1e6
            );
            figures.push((
                format!("mark_{prefix}{name}_{workers}_objects"),
                objects / 1e6,
                "million/s",
            ));
            figures.push((format!("mark_{prefix}{name}_{workers}_bytes"), bytes / 1e6, "MB/s"));
            speeds.push(objects);
        }
        figures.push((format!("mark_{prefix}{name}_2_vs_1"), speeds[1] / speeds[0], "ratio"));
    }
    drop(machine);
    for (name, value, unit) in figures {
        println!("figure {name} {value:.3} {unit}");
    }
}
