//! What a program declares: cells and functions.

use crate::syntax::{Form, Wrong};
use jit::stackmark_cranelift::{FuncId, INT, Kind, REF};
use std::collections::HashMap;

/// The fields of a cell: the references come first, behind the header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) fields: Vec<(String, Kind, i32)>,
    pub(crate) references: usize,
}

impl Cell {
    /// Of `(cell name field field:int ...)`.
    ///
    /// # Errors
    /// A field is no name.
    pub(crate) fn of(fields: &[Form]) -> Result<Cell, Wrong> {
        let declared = fields.iter().map(typed).collect::<Result<Vec<_>, _>>()?;
        let references = declared.iter().filter(|(_, kind)| *kind == REF).count();
        let (mut reference, mut number) = (8, 8 + 8 * references as i32);
        let place = |(name, kind)| {
            let next = if kind == REF { &mut reference } else { &mut number };
            *next += 8;
            (name, kind, *next - 8)
        };
        Ok(Cell { fields: declared.into_iter().map(place).collect(), references })
    }

    pub(crate) fn bytes(&self) -> usize {
        8 + 8 * self.fields.len()
    }
}

/// A name and its kind: `name` is a reference, `name:int` a number.
///
/// # Errors
/// The form is no name.
pub(crate) fn typed(form: &Form) -> Result<(String, Kind), Wrong> {
    let name = form.name()?;
    Ok(match name.strip_suffix(":int") {
        Some(name) => (name.into(), INT),
        None => (name.into(), REF),
    })
}

/// A function that the program declares.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) id: FuncId,
    pub(crate) params: Vec<(String, Kind)>,
    pub(crate) result: Kind,
    /// What a goroutine enters it by, if it takes one reference.
    pub(crate) entry: Option<FuncId>,
}

/// The names of a program.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) cells: HashMap<String, Cell>,
    pub(crate) functions: HashMap<String, Declared>,
}
