//! Loops, which poll.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

use super::Function;
use crate::error::CompileError;
use crate::kind::INT;

impl<M> Function<'_, M> {
    /// A loop: `body` is made once, and runs for each number from 0 on that is below `count`, as
    /// unsigned numbers. The loop polls each time. It is left at its end alone.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn repeat(
        &mut self,
        count: Value,
        body: impl FnOnce(&mut Self, Value) -> Result<(), CompileError>,
    ) -> Result<(), CompileError> {
        let next = self.variable(INT);
        let zero = self.int(0);
        self.def_var(next, zero);
        let [head, inside, done] = [(); 3].map(|()| self.create_block());
        self.ins().jump(head, &[]);
        self.switch_to_block(head);
        self.poll();
        let index = self.use_var(next);
        let more = self.ins().icmp(IntCC::UnsignedLessThan, index, count);
        self.ins().brif(more, inside, &[], done, &[]);
        self.switch_to_block(inside);
        body(self, index)?;
        let index = self.ins().iadd_imm_s(index, 1);
        self.def_var(next, index);
        self.ins().jump(head, &[]);
        self.switch_to_block(done);
        Ok(())
    }
}
