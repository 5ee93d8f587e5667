//! What a handshake and a stop wait for, one step after another. Machines that answer do so at the
//! first hint, where the waiter spins without the lock.

use super::*;
use std::sync::Arc;

fn inside(world: &World) -> Gate {
    let gate = Gate::new();
    assert!(world.try_enter(&gate) && gate.is_inside());
    gate
}

#[test]
fn a_machine_is_inside_from_its_entry_to_its_exit() {
    let (world, gate) = (World::new(), Gate::new());
    for _ in 0..2 {
        assert!(!gate.is_inside());
        world.enter(&gate);
        assert!(gate.is_inside() && !world.wants(&gate));
        world.safepoint(&gate);
        assert!(gate.is_inside());
        world.exit(&gate);
    }
    assert!(!gate.is_inside());
}

/// A waiter that gives up where it has nothing to wait for.
struct Patient<F> {
    ask: F,
    looks: u32,
}

impl<M, F: FnMut(&M)> Waiter<M> for Patient<F> {
    fn ask(&mut self, machine: &M) {
        (self.ask)(machine);
    }
    fn between_looks(&mut self) {
        self.looks += 1;
        assert!(self.looks < 1000, "all have answered");
    }
}

/// A waiter asks as long as it waits. Here the machines answer later and later.
#[test]
fn a_stop_asks_those_inside_until_all_are_outside_at_once() {
    let world = World::new();
    let gates = [inside(&world), inside(&world), Gate::new()];
    let mut asked = [0; 3];
    let ask = |gate: &&Gate| {
        let number = gates.iter().position(|other| std::ptr::eq(other, *gate)).expect("one");
        asked[number] += 1;
        match (number, asked) {
            (0, [2 | 4, ..]) => gate.inside.store(false, Ordering::Relaxed),
            // The first one tries to enter again.
            (1, [2, 2, _]) => gates[0].inside.store(true, Ordering::Relaxed),
            (1, [_, 5, _]) => gate.inside.store(false, Ordering::Relaxed),
            _ => {}
        }
    };
    world.stop(|| gates.iter().collect(), &mut Patient { ask, looks: 0 });
    assert!(gates.iter().all(|gate| !gate.is_inside()));
    assert_eq!(asked, [4, 5, 0]);
    assert!(!world.try_enter(&gates[0]), "the world is stopped");
    world.exit(&gates[0]);
    assert!(gates.iter().all(|gate| world.wants(gate)));
    world.start();
    assert!(gates.iter().all(|gate| world.wants(gate)), "each answers on its way in");
    assert!(world.try_enter(&gates[2]) && !world.wants(&gates[2]));
}

/// What goes outside has to notify then, which takes a lock.
#[test]
fn machines_are_watched_only_while_a_thread_waits_for_them() {
    let (world, gate) = (World::new(), Gate::new());
    let watched = || world.watched.load(Ordering::Relaxed);
    world.enter(&gate);
    world.handshake(|| vec![&gate], &mut |gate: &&Gate| {
        assert_eq!(watched(), 1);
        world.safepoint(gate);
    });
    assert_eq!(watched(), 0);
    world.stop(|| vec![&gate], &mut |gate: &&Gate| {
        assert_eq!(watched(), 1);
        world.exit(gate);
    });
    assert_eq!(watched(), 0, "it has stopped, and is not waited for");
    world.start();
    assert!(world.try_enter(&gate));
    let gives_up = std::panic::AssertUnwindSafe(|| {
        world.stop(|| vec![&gate], &mut |_: &&Gate| std::panic::resume_unwind(Box::new(())));
    });
    std::panic::catch_unwind(gives_up).expect_err("a waiter that panics");
    assert_eq!(watched(), 0);
}

#[test]
fn the_world_is_stopped_until_each_of_two_stoppers_has_started_it() {
    let (world, gate) = (World::new(), Gate::new());
    for _ in 0..2 {
        world.stop(Vec::<&Gate>::new, &mut |_: &_| {});
    }
    for stoppers in [2, 1] {
        assert!(world.wants(&gate) && !world.try_enter(&gate), "{stoppers} are left");
        world.exit(&gate);
        world.start();
    }
    assert!(world.try_enter(&gate) && !world.wants(&gate));
}

#[test]
fn a_machine_at_a_safepoint_waits_outside_until_the_world_starts() {
    let (world, gate) = (Arc::new(World::new()), Arc::new(Gate::new()));
    world.enter(&gate);
    world.stop(Vec::<&Gate>::new, &mut |_: &_| {});
    let (of_machine, own) = (world.clone(), gate.clone());
    let machine = std::thread::spawn(move || of_machine.safepoint(&own));
    limits::wait_until("the machine goes outside", || !gate.is_inside());
    world.start();
    machine.join().expect("no panic");
    assert!(gate.is_inside());
}

/// The fence takes longer than all the rest where the machines run.
#[test]
fn a_waiter_fences_only_for_a_machine_that_is_outside() {
    let world = World::new();
    let gates = [inside(&world), inside(&world), Gate::new()];
    let handshake = |gates: &[Gate]| {
        world.handshake(|| gates.iter().collect(), &mut |gate: &&Gate| world.safepoint(gate))
    };
    let stop = |gates: &[Gate]| {
        let fenced = world.stop(|| gates.iter().collect(), &mut |gate: &&Gate| {
            // A safepoint, but for the wait.
            gate.answered.store(event_of(world.wanted.load(Ordering::Relaxed)), Ordering::Relaxed);
            world.exit(gate);
        });
        world.start();
        gates[..2].iter().for_each(|gate| world.enter(gate));
        fenced
    };
    assert!(!handshake(&gates[..2]) && handshake(&gates));
    assert!(!stop(&gates[..2]) && stop(&gates));
}

#[test]
fn a_handshake_waits_for_those_inside_until_each_has_answered_in_its_way() {
    let world = World::new();
    let gates = [inside(&world), inside(&world), inside(&world), Gate::new()];
    let mut asked = Vec::new();
    world.handshake(|| gates.iter().collect(), &mut |gate: &&Gate| {
        let number = gates.iter().position(|other| std::ptr::eq(other, *gate)).expect("one");
        assert!(world.wants(gate), "{number} has not answered");
        match number {
            0 => world.safepoint(gate),
            1 => world.exit(gate),
            2 => {
                world.exit(gate);
                world.enter(gate);
            }
            _ => {}
        }
        asked.push(number);
    });
    assert_eq!(asked, [0, 1, 2]);
    assert_eq!(gates.each_ref().map(Gate::is_inside), [true, false, true, false]);
    // Those that are outside answer on their way in.
    assert_eq!(gates.each_ref().map(|gate| world.wants(gate)), [false, true, false, true]);
    for gate in [&gates[1], &gates[3]] {
        world.enter(gate);
        assert!(!world.wants(gate));
    }
    // The next handshake wants another answer.
    let mut asked = 0;
    world.handshake(|| gates.iter().collect(), &mut |gate: &&Gate| {
        asked += 1;
        world.safepoint(gate);
    });
    assert_eq!(asked, 4);
}

#[test]
fn a_function_is_a_waiter_that_asks_by_being_called() {
    let mut asked = Vec::new();
    let mut waiter = |machine: &u32| asked.push(*machine);
    waiter.ask(&3);
    waiter.ask(&4);
    assert_eq!(asked, [3, 4]);
}
