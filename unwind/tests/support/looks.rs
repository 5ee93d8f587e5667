//! Walks from a callback of a program, compared with the system's unwinder.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::{Cell, RefCell};
use std::ops::Range;

use gimli::Register;
use stackmark_unwind::{
    Code, ExpressionError, Memory, RegisterSet, RuleCache, Unwinder, WalkError,
};

use crate::{programs, this_thread};

/// All readable memory of the process.
pub(crate) struct Everything(Vec<Range<usize>>);

impl Everything {
    pub(crate) fn now() -> Everything {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps");
        let readable = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let address = |text| usize::from_str_radix(text, 16).ok();
            let special = line.contains("[vvar") || line.contains("[vsyscall]");
            (rest.starts_with('r') && !special).then_some(address(start)?..address(end)?)
        };
        Everything(maps.lines().filter_map(readable).collect())
    }
}

impl Memory for Everything {
    fn read(&self, address: usize) -> Option<usize> {
        let i = self.0.partition_point(|range| range.start <= address).checked_sub(1)?;
        const WORD: usize = size_of::<usize>();
        let left = self.0[i].end.checked_sub(address);
        let is_mapped = address.is_multiple_of(WORD) && left.is_some_and(|left| left >= WORD);
        // SAFETY: mapped and readable, and nothing is unmapped while a test looks.
        is_mapped.then(|| unsafe { std::ptr::read_volatile(address as *const usize) })
    }
}

thread_local! {
    /// How often this thread has looked.
    pub(crate) static LOOKS: Cell<usize> = const { Cell::new(0) };
    /// What is walked, for messages.
    pub(crate) static LABEL: Cell<&'static str> = const { Cell::new("") };
    /// The frames that both walks have found last: their pcs, youngest first.
    pub(crate) static FRAMES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Compares walks from here with the system's.
pub(crate) extern "C" fn look() {
    let label = LABEL.get();
    let code = Code::new();
    code.refresh_images();
    let memory = Everything::now();
    let snapshot = code.snapshot();
    let system = this_thread::system_registers();
    let context = RegisterSet::capture();
    let pcs: Vec<usize> =
        system.iter().skip(1).map(|frame| frame.pc).take_while(|pc| *pc != 0).collect();
    for lean in [false, true] {
        // The second time by the rules that the first has left in the cache.
        let mut cache = RuleCache::new();
        for round in 0..2 {
            let mut walked = Vec::new();
            macro_rules! walk {
                ($walk:expr) => {{
                    let mut walk = $walk;
                    loop {
                        let at = walked.len();
                        // Registers of the frame at which the walk stands, but for the first, in
                        // which the two walks stand at different calls.
                        if let Some(frame) = system.get(at).filter(|_| at > 0) {
                            for (number, value) in frame.registers {
                                let register = walk.register(Register(number));
                                let known = if lean { register.is_none() } else { false };
                                assert!(
                                    known || register == Some(value),
                                    "{label}: frame {at} at {:#x}: register {number} is \
                                     {register:x?}, the system has {value:#x}",
                                    frame.pc
                                );
                            }
                        }
                        match walk.next_frame() {
                            Ok(Some(frame)) => walked.push(frame.pc),
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    }
                }};
            }
            let end = if lean {
                walk!(Unwinder::lean(&snapshot, &mut cache, &memory, (), context))
            } else {
                walk!(Unwinder::new(&snapshot, &mut cache, &memory, (), context))
            };
            let unknown = matches!(
                end,
                Err(WalkError::Expression { source: ExpressionError::UnknownRegister(_), .. })
            );
            if lean && unknown {
                assert_eq!(walked[1..], pcs[..walked.len() - 1], "{label}, lean, round {round}");
            } else {
                assert_eq!(
                    end,
                    Ok(()),
                    "{label}, lean: {lean}, round {round}: {walked:x?} {pcs:x?}"
                );
                assert_eq!(walked[1..], pcs[..], "{label}, lean: {lean}, round {round}");
            }
        }
    }
    FRAMES.set(pcs);
    LOOKS.set(LOOKS.get() + 1);
}

/// Runs `entry` of a library with `look`, which must be called `looks` times.
pub(crate) fn run(label: &'static str, library: &programs::Loaded, entry: &str, looks: usize) {
    LABEL.set(label);
    LOOKS.set(0);
    // SAFETY: the function takes a callback.
    let function = unsafe {
        std::mem::transmute::<usize, extern "C" fn(extern "C" fn())>(library.address(entry))
    };
    function(look);
    assert_eq!(LOOKS.get(), looks, "{label}");
}
