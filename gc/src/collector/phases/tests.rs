//! The order of the steps, where it is an invariant's.

use super::*;

/// The steps taken so far, by name. The step `fails` is the last one.
#[derive(Default)]
struct Steps {
    taken: Vec<&'static str>,
    fails: Option<&'static str>,
    /// What was marked when the heap condemned the rest.
    condemned_by: usize,
}

impl Steps {
    fn take(&mut self, step: &'static str) -> Result<usize, &'static str> {
        assert!(!self.taken.contains(&step), "{step} is taken twice");
        self.taken.push(step);
        if self.fails == Some(step) { Err(step) } else { Ok(self.taken.len()) }
    }

    fn has(&self, step: &str) -> bool {
        self.taken.contains(&step)
    }

    /// All of these are taken, in this order.
    fn assert_order(&self, steps: &[&str]) {
        let at = |step: &&str| self.taken.iter().position(|taken| taken == step);
        let places: Vec<_> = steps.iter().map(at).collect();
        assert!(!places.contains(&None) && places.is_sorted(), "{:?}, not {steps:?}", self.taken);
    }
}

impl Opening for Steps {
    fn clear_marks(&mut self) {
        self.take("clear_marks").expect("it cannot fail");
    }
    fn turn_on(&mut self) {
        self.take("turn_on").expect("it cannot fail");
    }
    fn handshake(&mut self) {
        self.take("handshake").expect("it cannot fail");
    }
    fn forget_remembered(&mut self) {
        self.take("forget_remembered").expect("it cannot fail");
    }
    fn blacken_allocation(&mut self) {
        self.take("blacken_allocation").expect("it cannot fail");
    }
    fn open_marking(&mut self) {
        self.take("open_marking").expect("it cannot fail");
    }
}

impl Completing for Steps {
    type Error = &'static str;
    type Visited = usize;

    fn take_buffers(&mut self) {
        self.take("take_buffers").expect("it cannot fail");
    }
    fn finish_stacks(&mut self) -> Result<usize, &'static str> {
        self.take("finish_stacks")
    }
    fn drain(&mut self) {
        self.take("drain").expect("it cannot fail");
    }
}

impl Closing for Steps {
    type Due = usize;
    type Marked = usize;

    fn process_weak(&mut self) -> usize {
        self.take("process_weak").expect("it cannot fail")
    }
    fn verify(&mut self) -> Result<(), &'static str> {
        self.take("verify").map(drop)
    }
    fn turn_off(&mut self) {
        self.take("turn_off").expect("it cannot fail");
    }
    fn close_marking(&mut self) -> usize {
        self.take("close_marking").expect("it cannot fail")
    }
    fn condemn(&mut self, marked: &usize) {
        self.take("condemn").expect("it cannot fail");
        self.condemned_by = *marked;
    }
}

/// Invariants 1 and 2.
#[test]
fn a_cycle_opens_with_the_barrier_on_everywhere_before_anything_is_marked() {
    for (clears, forgets) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut steps = Steps::default();
        open(&mut steps, clears, forgets);
        steps.assert_order(&["turn_on", "handshake", "blacken_allocation", "open_marking"]);
        assert_eq!((steps.has("clear_marks"), steps.has("forget_remembered")), (clears, forgets));
        if clears {
            steps.assert_order(&["clear_marks", "turn_on"]);
        }
        if forgets {
            // What a goroutine remembers before it has the barrier on counts as remembered.
            steps.assert_order(&["handshake", "forget_remembered", "open_marking"]);
        }
    }
}

/// Invariants 3 and 4.
#[test]
fn a_cycle_closes_with_the_barrier_on_until_weak_references_are_cleared() {
    let mut steps = Steps::default();
    let Ok(closed) = close(&mut steps) else { panic!("no step fails") };
    steps.assert_order(&["take_buffers", "finish_stacks", "drain", "process_weak"]);
    steps.assert_order(&["process_weak", "verify", "turn_off", "condemn"]);
    steps.assert_order(&["drain", "close_marking", "condemn"]);
    let at = |step| 1 + steps.taken.iter().position(|taken| *taken == step).expect("it is taken");
    let results = ["finish_stacks", "process_weak", "close_marking"].map(at);
    assert_eq!([closed.visited, closed.due, closed.marked], results);
    assert_eq!(steps.condemned_by, closed.marked);
}

#[test]
fn a_cycle_that_cannot_be_completed_condemns_nothing() {
    for fails in ["finish_stacks", "verify"] {
        let mut steps = Steps { fails: Some(fails), ..Steps::default() };
        assert_eq!(close(&mut steps).err(), Some(fails));
        assert!(!steps.has("condemn"));
    }
}
