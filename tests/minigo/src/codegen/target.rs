//! Targets of assignments.
//!
//! An assignment has two phases. The first evaluates what the left side names (the operands of
//! index expressions and pointer indirections) and the right side. The second stores, from left to
//! right.
//! A nil pointer, an index out of range and a nil map are found in the second: the stores before
//! have happened then.

use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives::Failure;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use go_parser::ast::{Expr, Node, SelectorExpr};
use go_types::SelectionKind;

/// The left side of an assignment after the first phase: where it begins, and the steps from there
/// that lead through no pointer.
pub(crate) struct Target {
    root: Root,
    steps: Vec<Step>,
}

enum Root {
    Place(Place),
    /// What the pointer refers to; it may be nil.
    Pointer(Value),
    /// The element of a slice: address, length, index, type.
    Element(Value, Value, Value, Ty),
}

enum Step {
    /// A field of the struct type.
    Field(Ty, usize),
    /// An element of an array: its index, the length, the type.
    Element(Value, u64, Ty),
}

impl From<Place> for Target {
    fn from(place: Place) -> Target {
        Target { root: Root::Place(place), steps: vec![] }
    }
}

impl Target {
    fn pointer(p: Value) -> Target {
        Target { root: Root::Pointer(p), steps: vec![] }
    }

    fn with(mut self, step: Step) -> Target {
        self.steps.push(step);
        self
    }
}

impl FuncGen<'_, '_> {
    /// The first phase for an operand on the left. Its calls are hoisted already.
    pub(crate) fn target(&mut self, e: &Expr) -> Compiled<Target> {
        match e {
            Expr::Paren(p) => self.target(&p.expr),
            Expr::Star(s) => Ok(Target::pointer(self.expr(&s.expr)?.v[0])),
            Expr::Index(i) => {
                let t = self.c.type_of_expr(&i.expr)?;
                match self.kind(t) {
                    Kind::Slice(elem) => {
                        let s = self.expr(&i.expr)?;
                        let index = self.index_value(&i.index)?;
                        let root = Root::Element(s.v[0], s.v[1], index, elem);
                        Ok(Target { root, steps: vec![] })
                    }
                    Kind::Pointer(array) => {
                        let p = self.expr(&i.expr)?.v[0];
                        self.element_of(Target::pointer(p), array, i)
                    }
                    Kind::Array(..) => {
                        let array = self.target(&i.expr)?;
                        self.element_of(array, t, i)
                    }
                    _ => Ok(self.place(e)?.into()),
                }
            }
            Expr::Selector(s) => self.field_target(s, e),
            _ => Ok(self.place(e)?.into()),
        }
    }

    fn element_of(
        &mut self,
        array: Target,
        t: Ty,
        i: &go_parser::ast::IndexExpr,
    ) -> Compiled<Target> {
        let Kind::Array(n, elem) = self.kind(t) else {
            let pos = i.expr.pos(&self.c.program.ast);
            return Err(self.error(pos, "an index of this operand is not supported"));
        };
        let index = self.index_value(&i.index)?;
        Ok(array.with(Step::Element(index, n, elem)))
    }

    fn field_target(&mut self, s: &SelectorExpr, e: &Expr) -> Compiled<Target> {
        let selection = self.c.program.info().selections.get(&s.id()).cloned();
        let Some(sel) = selection.filter(|sel| matches!(sel.kind(), SelectionKind::FieldVal))
        else {
            return Ok(self.place(e)?.into());
        };
        let mut t = self.c.type_of_expr(&s.expr)?;
        let mut target = match self.kind(t) {
            Kind::Pointer(inner) => {
                t = inner;
                Target::pointer(self.expr(&s.expr)?.v[0])
            }
            _ => self.target(&s.expr)?,
        };
        for index in sel.indices() {
            if let Kind::Pointer(inner) = self.kind(t) {
                // An embedded pointer on the way is an operand: it is loaded now.
                let place = self.reach(target);
                target = Target::pointer(self.load(&place, t).v[0]);
                t = inner;
            }
            let Kind::Struct(fields) = self.kind(t) else {
                let pos = s.expr.pos(&self.c.program.ast);
                return Err(self.error(pos, "this selector is not supported"));
            };
            target = target.with(Step::Field(t, *index));
            t = fields[*index].ty;
        }
        Ok(target)
    }

    /// The second phase: the place, checked.
    pub(crate) fn reach(&mut self, target: Target) -> Place {
        let mut place = match target.root {
            Root::Place(place) => place,
            Root::Pointer(p) => {
                self.check_nil(p);
                Place::Memory { base: p, offset: 0, barrier: true }
            }
            Root::Element(base, len, index, elem) => {
                self.element_place(base, 0, len, index, elem, true)
            }
        };
        for step in target.steps {
            place = match (step, place) {
                (Step::Field(t, index), place) => self.field_place(&place, t, index),
                (Step::Element(index, n, elem), Place::Memory { base, offset, barrier }) => {
                    let n = self.b.int(n as i64);
                    self.element_place(base, offset, n, index, elem, barrier)
                }
                (Step::Element(index, n, _), place) => {
                    // An array without elements is in no memory: no index is in range.
                    let n = self.b.int(n as i64);
                    let ok = self.b.ins().icmp(IntCC::UnsignedLessThan, index, n);
                    self.check(ok, Failure::Index, &[index, n]);
                    place
                }
            };
        }
        place
    }

    /// Stores values to targets, from left to right.
    pub(crate) fn store_all(&mut self, targets: Vec<Target>, values: Vec<Val>) {
        for (target, value) in targets.into_iter().zip(values) {
            let place = self.reach(target);
            self.store(&place, &value);
        }
    }
}
