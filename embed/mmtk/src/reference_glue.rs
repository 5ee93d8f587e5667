//! A binding's `ReferenceGlue`, where weak references hold their referent in one slot:
//! [`OneSlot`]. The functions are its methods, for a binding that adds something to one.

use crate::host::StackHost;
use crate::slot::FromStack;
use mmtk::util::ObjectReference;
use mmtk::util::opaque_pointer::VMWorkerThread;
use mmtk::vm::ReferenceGlue;
use mmtk::vm::slot::Slot;
use std::marker::PhantomData;

/// For `VMBinding::VMReferenceGlue`: the referent is in [`StackHost::referent`]. Queues of
/// references that have been cleared are the binding's own, so this has none.
#[derive(Debug)]
pub struct OneSlot<VM>(PhantomData<fn() -> VM>);

impl<VM: StackHost> ReferenceGlue<VM> for OneSlot<VM> {
    type FinalizableType = ObjectReference;

    fn get_referent(reference: ObjectReference) -> Option<ObjectReference> {
        get_referent::<VM>(reference)
    }

    fn set_referent(reference: ObjectReference, referent: ObjectReference) {
        set_referent::<VM>(reference, referent);
    }

    fn clear_referent(reference: ObjectReference) {
        clear_referent::<VM>(reference);
    }

    fn enqueue_references(_: &[ObjectReference], _: VMWorkerThread) {}
}

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
