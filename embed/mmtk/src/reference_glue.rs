//! Bodies for a binding's `ReferenceGlue`, for weak references that hold their referent in one
//! slot: [`StackHost::referent`].

use crate::host::StackHost;
use crate::slot::FromStack;
use mmtk::util::ObjectReference;
use mmtk::vm::slot::Slot;

/// The referent, if it has not been cleared.
pub fn get_referent<VM: StackHost>(reference: ObjectReference) -> Option<ObjectReference> {
    VM::referent(reference).load()
}

/// Makes the reference refer to an object, which may be where the old one has moved.
pub fn set_referent<VM: StackHost>(reference: ObjectReference, referent: ObjectReference) {
    VM::referent(reference).store(referent);
}

/// Makes the reference refer to nothing.
pub fn clear_referent<VM: StackHost>(reference: ObjectReference) {
    VM::referent(reference).clear();
}
