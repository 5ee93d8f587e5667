//! How long the world stops in a cycle with many weak references.
//!
//! Run it with `cargo bench -p stackmark --bench weak [-- --quick]`. A million objects have a weak
//! reference each, a callback, or an entry of a weak map. Half of the objects die before the first
//! cycle. No goroutine runs. The last lines are of the form `figure NAME VALUE UNIT`: the longest
//! stop of each cycle, their median and the longest of all, and the whole cycle's time.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use stackmark::mark_sweep::{Descriptor, MarkSweep, Options};
use stackmark::stack::{self, Goroutine, Host, Machine, Runtime};
use stackmark::unwind::Code;
use stackmark::weak::WeakReferences;
use stackmark::{Collector, Config};

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

struct NoGoroutines;

impl Host for NoGoroutines {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("a stack of {limit} bytes, without goroutines")
    }
}

/// Refers weakly to each of these objects. What it returns is kept.
type Fill = fn(&Arc<WeakReferences>, &[usize]) -> Box<dyn Any>;

/// Microseconds of the longest stop of each cycle, and of each whole cycle.
fn stops(objects: usize, cycles: usize, fill: Fill) -> [Vec<f64>; 2] {
    let code = Arc::new(Code::new());
    let runtime =
        Runtime::new(stack::Config::default(), code, Box::new(NoGoroutines)).expect("a runtime");
    let heap = MarkSweep::new(&Options::default()).expect("address space");
    let config = Config { workers: 1, percent: None, ..Config::default() };
    let collector = Collector::start(heap.clone(), runtime, &config).expect("threads");
    let allocator = heap.allocator().expect("address space");
    let references = heap.register(Descriptor::references()).expect("a descriptor");
    let leaves = heap.register(Descriptor::no_pointers()).expect("a descriptor");
    let machine = Machine::attach(collector.runtime()).expect("a new thread");
    let weak = collector.weak_references();
    let (table, kept) = machine.inside(|inside| {
        let table = allocator.allocate(&inside, references, objects / 2 * WORD).expect("room");
        let all: Vec<usize> = (0..objects)
            .map(|at| {
                let leaf = allocator.allocate(&inside, leaves, 16).expect("room").address();
                if at % 2 == 0 {
                    // SAFETY: within the table, which only this thread knows.
                    unsafe { ((table.address() + at / 2 * WORD) as *mut usize).write(leaf) };
                }
                leaf
            })
            .collect();
        (collector.handles().create(table.address()), fill(weak, &all))
    });
    let mut whole = Vec::new();
    for _ in 0..cycles {
        let begun = Instant::now();
        collector.collect();
        whole.push(begun.elapsed().as_nanos() as f64 / 1e3);
    }
    let cycles = collector.statistics().cycles_detail;
    drop((table, kept));
    [cycles.iter().map(|cycle| cycle.world_stop_ns as f64 / 1e3).collect(), whole]
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let (objects, cycles) = if quick { (50_000, 3) } else { (1_000_000, 7) };
    let kinds: [(&str, Fill); 3] = [
        ("references", |weak, all| {
            Box::new(all.iter().map(|word| weak.create(*word)).collect::<Vec<_>>())
        }),
        ("callbacks", |weak, all| {
            all.iter().for_each(|word| weak.on_unreachable(*word, drop));
            Box::new(())
        }),
        ("map_entries", |weak, all| {
            let map = weak.map();
            all.iter().for_each(|word| map.insert(*word, *word));
            Box::new(map)
        }),
    ];
    let mut figures = Vec::new();
    for (name, fill) in kinds {
        let [stops, whole] = stops(objects, cycles, fill);
        println!("{objects} {name}: stops of {stops:.0?} us, cycles of {whole:.0?}");
        let longest = stops.iter().copied().fold(0.0, f64::max);
        figures.push((format!("weak_{name}_stop_us"), median(stops), "us"));
        figures.push((format!("weak_{name}_longest_stop_us"), longest, "us"));
        figures.push((format!("weak_{name}_cycle_ms"), median(whole) / 1e3, "ms"));
    }
    drop(machine);
    for (name, value, unit) in figures {
        println!("figure {name} {value:.3} {unit}");
    }
}
