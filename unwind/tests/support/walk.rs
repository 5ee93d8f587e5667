//! A walk to its end.

use stackmark_unwind::{
    CallFrame, Code, Memory, RegisterSet, RuleCache, UndescribedFrames, Unwinder, WalkError,
};

/// The frames of a walk, and how it ends.
pub(crate) fn walk<M: Memory>(
    code: &Code,
    memory: M,
    context: RegisterSet,
    hook: Option<&dyn UndescribedFrames>,
) -> (Vec<CallFrame>, Result<(), WalkError>) {
    let snapshot = code.snapshot();
    let mut cache = RuleCache::new();
    let mut walk = Unwinder::new(&snapshot, &mut cache, memory, (), context);
    if let Some(hook) = hook {
        walk = walk.undescribed(hook);
    }
    let mut frames = Vec::new();
    loop {
        match walk.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => {
                assert_eq!(walk.next_frame(), Err(error), "it stands still");
                return (frames, Err(error));
            }
        }
    }
}
