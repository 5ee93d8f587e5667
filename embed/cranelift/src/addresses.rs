//! The addresses of the compiling process to which code for a linker refers.

use cranelift_module::{DataId, Linkage};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// The symbol of the table of addresses: a word for each of
/// [`ObjectCode::addresses`](crate::linked::ObjectCode::addresses). The embedder defines it, as
/// data that is writable and aligned to words.
pub const TABLE: &str = "stackmark_addresses";

/// A module that writes code for a linker: `cranelift-object`'s, with its `unwind_info`.
pub trait Linkable: cranelift_module::Module + Any + Send {}

impl<T: cranelift_module::Module + Any + Send> Linkable for T {}

/// The addresses that code refers to, each with a place in the table.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    table: DataId,
    list: Arc<Mutex<List>>,
}

/// The addresses in the order of the table, and where each stands.
#[derive(Debug, Default)]
struct List {
    addresses: Vec<usize>,
    offsets: HashMap<usize, i32>,
}

impl Addresses {
    /// None yet.
    ///
    /// # Panics
    /// If `module` has declared the [`TABLE`] otherwise.
    pub(crate) fn new(module: &mut dyn cranelift_module::Module) -> Addresses {
        let table = module.declare_data(TABLE, Linkage::Export, true, false);
        Addresses { table: table.expect("a module without a table yet"), list: Arc::default() }
    }

    pub(crate) fn table(&self) -> DataId {
        self.table
    }

    /// Where the address stands in the table, in bytes.
    pub(crate) fn offset(&self, address: usize) -> i32 {
        let List { addresses, offsets } = &mut *self.list.lock();
        *offsets.entry(address).or_insert_with(|| {
            addresses.push(address);
            8 * (addresses.len() as i32 - 1)
        })
    }

    /// All of them, in the order of the table.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.list.lock().addresses)
    }
}
