//! Programs that compute, compare and use addresses of slots in all orders, across calls that move
//! the stack, do what a model of them does.

use proptest::prelude::*;
use stackmark::{mark_sweep, stack};
use stackmark_cranelift::cranelift_codegen::ir::{StackSlot, StackSlotData, StackSlotKind};
use stackmark_cranelift::types::I64;
use stackmark_cranelift::{
    CompileError, Engine, FuncId, Function, INT, InstBuilder, IntCC, MemFlagsData, Options, REF,
    Settings, Value,
};

const SLOTS: usize = 2;
const WORDS: usize = 8;

/// What one step does. Numbers choose among what there is, as its remainder by how much there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The address of a word of a slot.
    Address(usize, usize),
    /// An address, so many words on.
    AddConstant(usize, usize),
    /// An address, on by what the program computes.
    AddNumber(usize, usize),
    /// One of two addresses.
    Select(usize, usize, usize),
    Load(usize),
    Store(usize, usize),
    /// Whether two addresses are the same, as a number.
    Compare(usize, usize),
    /// As `Compare`, with the first address as a call has returned it: a declared one.
    CompareReturned(usize, usize),
    /// The distance of two addresses in one slot.
    Subtract(usize, usize),
    /// Moves the stack.
    Poll,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..64usize;
    prop_oneof![
        (n(), n()).prop_map(|(a, b)| Step::Address(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::AddConstant(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::AddNumber(a, b)),
        (n(), n(), n()).prop_map(|(a, b, c)| Step::Select(a, b, c)),
        n().prop_map(Step::Load),
        (n(), n()).prop_map(|(a, b)| Step::Store(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Compare(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::CompareReturned(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Subtract(a, b)),
        Just(Step::Poll),
    ]
}

/// An address as the model has it: a slot and a word.
type Place = (usize, usize);

/// The model: what the program's values are.
#[derive(Default)]
struct Model {
    words: [[u64; WORDS]; SLOTS],
    places: Vec<Place>,
    numbers: Vec<u64>,
}

fn chosen<T: Copy>(list: &[T], number: usize) -> T {
    list[number % list.len()]
}

impl Model {
    /// The steps, so often, with the first number. Returns the sum of all numbers of each turn.
    fn run(steps: &[Step], times: u64, first: u64) -> u64 {
        let mut model = Model::default();
        let mut total: u64 = 0;
        for _ in 0..times {
            model.places = vec![(0, 0)];
            model.numbers = vec![first];
            steps.iter().for_each(|step| model.step(*step));
            let sum = model.numbers.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
            total = total.wrapping_mul(3).wrapping_add(sum);
        }
        total
    }

    fn step(&mut self, step: Step) {
        let place = |list: &[Place], number| chosen(list, number);
        let on = |(slot, word): Place, by: usize| (slot, (word + by) % WORDS);
        match step {
            Step::Address(slot, word) => self.places.push((slot % SLOTS, word % WORDS)),
            Step::AddConstant(at, by) => self.places.push(on(place(&self.places, at), by)),
            Step::AddNumber(at, n) => {
                let by = chosen(&self.numbers, n) as usize % WORDS;
                self.places.push(on(place(&self.places, at), by));
            }
            Step::Select(n, a, b) => {
                let which = if chosen(&self.numbers, n) != 0 { a } else { b };
                self.places.push(place(&self.places, which));
            }
            Step::Load(at) => {
                let (slot, word) = place(&self.places, at);
                self.numbers.push(self.words[slot][word]);
            }
            Step::Store(at, n) => {
                let (slot, word) = place(&self.places, at);
                self.words[slot][word] = chosen(&self.numbers, n);
            }
            Step::Compare(a, b) | Step::CompareReturned(a, b) => {
                let same = place(&self.places, a) == place(&self.places, b);
                self.numbers.push(same.into());
            }
            Step::Subtract(a, b) => {
                let (a, b) = (place(&self.places, a), place(&self.places, b));
                let bytes = (a.1 as i64 - b.1 as i64) * 8;
                self.numbers.push(if a.0 == b.0 { bytes as u64 } else { 0 });
            }
            Step::Poll => {}
        }
    }
}

/// The code that the steps become. Beside each address stands the word of its slot, as code.
struct Code {
    slots: [StackSlot; SLOTS],
    /// Addresses, the slot of each as a number, and its word within it.
    places: Vec<(Value, Value, Value)>,
    numbers: Vec<Value>,
    same: FuncId,
}

impl Code {
    /// The address so many words on, within its slot.
    fn on(&mut self, f: &mut Function<'_>, at: usize, by: Value) {
        let (address, slot, word) = chosen(&self.places, at);
        let sum = f.ins().iadd(word, by);
        let new = f.ins().band_imm_u(sum, WORDS as i64 - 1);
        let words = f.ins().isub(new, word);
        let bytes = f.ins().ishl_imm_u(words, 3);
        let address = f.ins().iadd(address, bytes);
        self.places.push((address, slot, new));
    }

    fn step(&mut self, f: &mut Function<'_>, step: Step) -> Result<(), CompileError> {
        let flags = MemFlagsData::trusted();
        match step {
            Step::Address(slot, word) => {
                let (slot, word) = (slot % SLOTS, word % WORDS);
                let address = f.ins().stack_addr(I64, self.slots[slot], 8 * word as i32);
                let place = (address, f.int(slot as i64), f.int(word as i64));
                self.places.push(place);
            }
            Step::AddConstant(at, by) => {
                let by = f.int(by as i64);
                self.on(f, at, by);
            }
            Step::AddNumber(at, n) => {
                let by = f.ins().band_imm_u(chosen(&self.numbers, n), WORDS as i64 - 1);
                self.on(f, at, by);
            }
            Step::Select(n, a, b) => {
                let which = chosen(&self.numbers, n);
                let (a, b) = (chosen(&self.places, a), chosen(&self.places, b));
                let address = f.ins().select(which, a.0, b.0);
                let slot = f.ins().select(which, a.1, b.1);
                let word = f.ins().select(which, a.2, b.2);
                self.places.push((address, slot, word));
            }
            Step::Load(at) => {
                let word = f.ins().load(I64, flags, chosen(&self.places, at).0, 0);
                self.numbers.push(word);
            }
            Step::Store(at, n) => {
                let word = chosen(&self.numbers, n);
                f.ins().store(flags, word, chosen(&self.places, at).0, 0);
            }
            Step::Compare(a, b) | Step::CompareReturned(a, b) => {
                let mut a = chosen(&self.places, a).0;
                if matches!(step, Step::CompareReturned(..)) {
                    a = f.call(self.same, &[a])?[0];
                }
                let is = f.ins().icmp(IntCC::Equal, a, chosen(&self.places, b).0);
                let is = f.to_word(is);
                self.numbers.push(is);
            }
            Step::Subtract(a, b) => {
                let (a, b) = (chosen(&self.places, a), chosen(&self.places, b));
                let bytes = f.ins().isub(a.0, b.0);
                let same = f.ins().icmp(IntCC::Equal, a.1, b.1);
                let zero = f.int(0);
                let bytes = f.ins().select(same, bytes, zero);
                self.numbers.push(bytes);
            }
            Step::Poll => f.poll(),
        }
        Ok(())
    }
}

fn run(steps: &[Step], times: u64, first: u64) -> u64 {
    let settings = Settings {
        stack: stack::Config {
            move_every_poll: true,
            poll_always: true,
            poison: true,
            ..stack::Config::default()
        },
        // Hundreds of heaps are made, and an emulator keeps a record of each page of each.
        heap: mark_sweep::Options { limit: 16 << 20, ..mark_sweep::Options::default() },
        code: Options { code_bytes: 1 << 20, checked: true, ..Options::default() },
        ..Settings::default()
    };
    let engine = Engine::new(settings).expect("an engine");
    let mut module = engine.module().expect("a module");
    let same = module.declare("same", &[REF], &[REF]).unwrap();
    module.define(same, |f| f.return_(&[f.param(0)])).unwrap();
    let main = module.declare("main", &[INT], &[INT]).unwrap();
    let body = |f: &mut Function<'_>| {
        let zero = f.int(0);
        let slots = [(); SLOTS].map(|()| {
            let bytes = 8 * WORDS as u32;
            let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
            let slot = f.create_sized_stack_slot(slot);
            for word in 0..WORDS {
                f.ins().stack_store(I64, zero, slot, 8 * word as i32);
            }
            slot
        });
        let (left, total) = (f.variable(INT), f.variable(INT));
        let times = f.int(times as i64);
        f.def_var(left, times);
        f.def_var(total, zero);
        let [again, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(again, &[]);
        f.switch_to_block(again);
        let at = f.ins().stack_addr(I64, slots[0], 0);
        let places = vec![(at, f.int(0), f.int(0))];
        let mut code = Code { slots, places, numbers: vec![f.param(0)], same };
        steps.iter().try_for_each(|step| code.step(f, *step))?;
        let old = f.use_var(total);
        let mut sum = f.ins().imul_imm_s(old, 3);
        for number in code.numbers {
            sum = f.ins().iadd(sum, number);
        }
        f.def_var(total, sum);
        let now = f.use_var(left);
        let less = f.ins().iadd_imm_s(now, -1);
        f.def_var(left, less);
        f.ins().brif(less, again, &[], done, &[]);
        f.switch_to_block(done);
        let total = f.use_var(total);
        f.return_(&[total])
    };
    if let Err(error) = module.define(main, body) {
        panic!("{error}\n{steps:?}");
    }
    module.export(main).unwrap();
    // SAFETY: the functions use addresses of slots within them, and nothing else.
    let program = unsafe { engine.finish(module) }.unwrap();
    engine.run(&program, main, first as usize).unwrap() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_what_a_model_says(
        steps in proptest::collection::vec(step(), 1..60),
        times in 1..4u64,
        first in 0..10u64,
    ) {
        prop_assert_eq!(run(&steps, times, first), Model::run(&steps, times, first));
    }
}
