//! The world with one machine, for the models of the collector.

use super::{Gate, World};

/// A world, and the only machine in it.
#[derive(Debug, Default)]
pub struct OneMachine {
    world: World,
    gate: Gate,
}

impl OneMachine {
    /// The machine goes inside.
    pub fn enter(&self) {
        self.world.enter(&self.gate);
    }

    /// The machine passes a safepoint.
    pub fn safepoint(&self) {
        self.world.safepoint(&self.gate);
    }

    /// The machine goes outside.
    pub fn exit(&self) {
        self.world.exit(&self.gate);
    }

    /// The collector's handshake.
    pub fn handshake(&self) {
        self.world.handshake(|| vec![&self.gate], &mut |_: &_| {});
    }

    /// The collector calls `f` in the stopped world.
    pub fn stopped<R>(&self, f: impl FnOnce() -> R) -> R {
        self.world.stop(|| vec![&self.gate], &mut |_: &_| {});
        let result = f();
        self.world.start();
        result
    }
}
