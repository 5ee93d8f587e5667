//! Registration: what is accepted, what is refused and why, and that readers are safe meanwhile.

mod support;
#[path = "support/system_call.rs"]
mod system_call;

use std::sync::atomic::{AtomicBool, Ordering};

use gimli::write::CallFrameInstruction as Cfi;
use stackmark_unwind::{
    CfiError, Code, CodeError, FrameKind, Function, ImageError, NativeRule, Region, RegionError,
    Safepoint, SafepointRef,
};
use support::arch::{self, FP, SCRATCH, SP, W, WORD, bytes_of};
use support::{CFA, FUNCTION, eh_frame, region, shown};

const START: usize = 0x10_0000;

/// One function with one safepoint, and a frame of six words.
fn one() -> Region {
    at(START)
}

fn at(start: usize) -> Region {
    region(start, &[&[(0x20, bytes_of(4), &[0, bytes_of(1)])]])
}

fn slots(safepoint: SafepointRef<'_>) -> Vec<u32> {
    safepoint.slots().collect()
}

fn refused(change: impl FnOnce(&mut Region)) -> RegionError {
    let code = Code::new();
    let mut region = one();
    change(&mut region);
    match code.register(region).unwrap_err() {
        CodeError::Region { region, source } => {
            assert_eq!(region, "region at 0x100000");
            assert!(
                code.snapshot().kind(START + 8).is_none(),
                "nothing of a refused region is registered"
            );
            source
        }
        other => panic!("{other}"),
    }
}

fn with_cfi(instructions: Vec<(u32, Cfi)>) -> impl FnOnce(&mut Region) {
    |region| region.eh_frame = eh_frame([(START, FUNCTION as u32, instructions)])
}

#[test]
fn lookups_find_functions_and_safepoints_of_registered_regions_only() {
    let code = Code::new();
    let of_first: &[_] = &[(0x20, bytes_of(4), &[0, bytes_of(1)][..])];
    let first = code.register(region(START, &[of_first, &[(FUNCTION, bytes_of(2), &[])]])).unwrap();
    let of_second: &[_] = &[(0x30, bytes_of(6), &[bytes_of(5)][..])];
    let second = code.register(region(START + 2 * FUNCTION, &[of_second])).unwrap();
    assert_ne!(first, second);
    let snapshot = code.snapshot();
    let safepoint = snapshot.safepoint(START + 0x20).unwrap();
    assert_eq!((safepoint.cfa_offset(), slots(safepoint)), (6 * WORD, vec![0, bytes_of(1)]));
    // A call may be a region's last instruction. Its return address is then the next region's first
    // byte.
    assert_eq!(snapshot.safepoint(START + 2 * FUNCTION).unwrap().cfa_offset(), 4 * WORD);
    assert_eq!(slots(snapshot.safepoint(START + 2 * FUNCTION + 0x30).unwrap()), [bytes_of(5)]);
    assert!(snapshot.safepoint(START + 0x21).is_none());
    assert!(snapshot.safepoint(START).is_none());
    let function = snapshot.function(START + FUNCTION).unwrap();
    assert_eq!((function.region, function.name), ("region at 0x100000", "f1"));
    assert_eq!(function.range, START + FUNCTION..START + 2 * FUNCTION);
    assert!(snapshot.function(START - 1).is_none());
    assert!(snapshot.function(START + 3 * FUNCTION).is_none());

    code.unregister(first).unwrap();
    assert!(snapshot.safepoint(START + 0x20).is_some(), "an older snapshot still sees it");
    assert!(code.snapshot().safepoint(START + 0x20).is_none());
    assert!(code.snapshot().safepoint(START + 2 * FUNCTION + 0x30).is_some());
    assert_eq!(code.unregister(first), Err(CodeError::Unknown(first)));
    let again = code.register(one()).unwrap();
    assert_ne!(again, first);
}

#[test]
fn a_region_of_another_code_is_unknown() {
    let (code, other) = (Code::new(), Code::new());
    let id = code.register(one()).unwrap();
    assert_eq!(other.unregister(id), Err(CodeError::Unknown(id)));
}

#[test]
fn overlaps_are_refused_by_name() {
    let code = Code::new();
    code.register(one()).unwrap();
    code.register_native(START + 0x1000..START + 0x1100, FrameKind::Stub, NativeRule::End).unwrap();
    let overlap = |start: usize, end: usize, name: &str, with: &str| {
        Err(CodeError::Overlap { name: name.into(), start, end, with: with.into() })
    };
    let (start, end) = (START + FUNCTION - 8, START + FUNCTION + 8);
    assert_eq!(
        code.register_native(start..end, FrameKind::Entry, NativeRule::End),
        overlap(start, end, "native code", "region region at 0x100000")
    );
    let start = START + 0x1080;
    let name = format!("region at {start:#x}");
    assert_eq!(
        code.register(region(start, &[&[]])).map(|_| ()),
        overlap(start, start + FUNCTION, &name, "Stub code at 0x101000")
    );
}

#[test]
fn impossible_ranges_are_refused() {
    // 4 GiB, where there is as much.
    let large = 1_usize.checked_shl(32).unwrap_or(usize::MAX);
    for (start, len) in [(0, 8), (START, 0), (usize::MAX - 4, 8), (START, large)] {
        assert_eq!(
            refused(|region| (region.start, region.len) = (start, len)),
            RegionError::Range { start, len }
        );
    }
    let code = Code::new();
    let (start, end) = (START, START);
    let native = |rule| code.register_native(START..START + 8, FrameKind::Callback, rule);
    assert_eq!(
        code.register_native(start..end, FrameKind::Stub, NativeRule::End),
        Err(CodeError::NoRange { start, end })
    );
    for cfa_offset in [0, bytes_of(1) + bytes_of(1) / 2, bytes_of(1 << 25), 1 << 31] {
        let refusal = native(NativeRule::Fixed { cfa_offset });
        assert_eq!(refusal, Err(CodeError::FixedRule { start: START, cfa_offset }));
    }
    let source = ImageError::NoImage { address: START };
    assert_eq!(native(NativeRule::FromImage), Err(CodeError::Image { start: START, source }));
}

#[test]
fn malformed_cfi_is_refused_with_its_place() {
    let cut = refused(|region| region.eh_frame.truncate(region.eh_frame.len() - 1));
    assert!(matches!(cut, RegionError::Cfi(CfiError::Entry { .. })), "{cut}");
    let unbalanced = refused(with_cfi(vec![(1, Cfi::RestoreState)]));
    assert!(
        matches!(unbalanced, RegionError::Cfi(CfiError::Instructions { pc: 0x10_0000, .. })),
        "{unbalanced}"
    );
    let outside = refused(|region| region.eh_frame = eh_frame([(START - 8, 16, vec![])]));
    assert!(
        matches!(outside, RegionError::Cfi(CfiError::Outside { start: 0xf_fff8, .. })),
        "{outside}"
    );
    let wraps = eh_frame([(usize::MAX - 8, 16, vec![])]);
    let wraps = refused(|region| region.eh_frame = wraps);
    assert!(matches!(wraps, RegionError::Cfi(CfiError::Empty { .. })), "{wraps}");
    let twice = refused(|region| {
        region.eh_frame = eh_frame([(START, 16, vec![]), (START + 8, 16, vec![])])
    });
    assert_eq!(twice, RegionError::Cfi(CfiError::Overlap { pc: START as u64 + 8 }));
}

/// Compilers leave such entries of functions without code, and linkers move them to the address of
/// the next function.
#[test]
fn entries_of_no_bytes_say_nothing() {
    let real = (START, FUNCTION as u32, vec![(1, Cfi::CfaOffset(6 * W))]);
    let empty = |at: usize| (at, 0, vec![(0, Cfi::CfaOffset(8 * W))]);
    for order in 0..4 {
        let mut functions = vec![empty(START), empty(START + 8), empty(START + FUNCTION)];
        functions.insert(order, real.clone());
        let code = Code::new();
        let mut region = one();
        region.eh_frame = eh_frame(functions);
        let id = code.register(region).unwrap();
        assert_eq!(code.snapshot().safepoint(START + 0x20).unwrap().cfa_offset(), 6 * WORD);
        code.unregister(id).unwrap();
    }
    // Alone, and outside of the region.
    let mut nothing = one();
    nothing.safepoints.clear();
    nothing.eh_frame = eh_frame([empty(START), empty(START - 0x1000)]);
    let code = Code::new();
    let id = code.register(nothing).unwrap();
    assert_eq!(code.snapshot().rule(START), Ok(None));
    code.unregister(id).unwrap();
}

#[test]
fn states_may_be_remembered_in_any_depth() {
    for depth in [1, 3, 4, 6, 40, 250] {
        let mut instructions = Vec::new();
        for i in 0..depth {
            instructions.push((1 + i, Cfi::RememberState));
            instructions.push((1 + i, Cfi::CfaOffset((2 + i as i32) * W)));
        }
        for i in 0..depth {
            instructions.push((0x400 + i, Cfi::RestoreState));
        }
        let len = 0x800;
        let code = Code::new();
        let (start, eh_frame) = (START, eh_frame([(START, len as u32, instructions)]));
        code.register(Region { start, len, eh_frame, ..Region::default() }).unwrap();
        let snapshot = code.snapshot();
        let rule = |at: u32| snapshot.rule(START + at as usize).unwrap().unwrap().to_string();
        let deep = |depth: u32| match depth {
            0 => shown(CFA),
            _ => shown((1 + depth as usize) * WORD),
        };
        for i in 0..depth {
            assert_eq!(rule(i), deep(i), "of {depth}");
            assert_eq!(rule(0x400 + i), deep(depth - 1 - i), "of {depth}");
        }
        assert_eq!(rule(0x300), deep(depth), "of {depth}");
    }
    let too_deep = refused(with_cfi(vec![(1, Cfi::RememberState); 300]));
    assert!(matches!(too_deep, RegionError::Cfi(CfiError::Instructions { .. })), "{too_deep}");
}

/// As libgcc reads it: the expression stays in force over `def_cfa_offset`, and ends at
/// `def_cfa_register`, which takes the offset noted last.
#[test]
fn a_cfa_by_a_register_may_follow_one_by_an_expression() {
    let mut expression = gimli::write::Expression::new();
    expression.op_breg(SP, 3 * i64::from(W));
    let instructions = vec![
        (4, Cfi::CfaOffset(4 * W)),
        (8, Cfi::CfaExpression(expression.clone())),
        (12, Cfi::CfaRegister(FP)),
        (16, Cfi::CfaExpression(expression)),
        (20, Cfi::CfaOffset(5 * W)),
        (24, Cfi::CfaRegister(SP)),
        (28, Cfi::CfaOffset(6 * W)),
    ];
    let mut region = one();
    region.safepoints.clear();
    with_cfi(instructions)(&mut region);
    let code = Code::new();
    code.register(region).unwrap();
    let snapshot = code.snapshot();
    let cfa = |at: usize| {
        let rule = snapshot.rule(START + at).unwrap().unwrap().to_string();
        // Up to what it says of registers. A packed rule has a name of its own for the return
        // address.
        let next = [arch::name(FP), arch::name(arch::RA), "ra"].map(|name| format!(" {name}="));
        let end = next.iter().filter_map(|next| rule.find(next)).min();
        rule[..end.expect("the return address")].to_owned()
    };
    let by_expression = cfa(8);
    assert!(by_expression.starts_with("cfa={"), "{by_expression}");
    let found: Vec<String> = (0..8).map(|i| cfa(4 * i)).collect();
    let by_expression = &*by_expression;
    let by = |register: &str, words: usize| format!("cfa={register}+{}", words * WORD);
    let first = by("sp", CFA / WORD);
    let expected = [
        &*first,
        &by("sp", 4),
        by_expression,
        &by("fp", 4),
        by_expression,
        by_expression,
        &by("sp", 5),
        &by("sp", 6),
    ];
    assert_eq!(found, expected);
}

#[test]
fn functions_must_lie_in_the_region_and_apart() {
    let function =
        |name: &str, start, len| Function { name: name.into(), start, len, ..Function::default() };
    for (start, len) in
        [(START - 8, 16), (START + 8, 0), (START + FUNCTION - 8, 16), (START + 8, usize::MAX)]
    {
        assert_eq!(
            refused(|region| region.functions.push(function("stray", start, len))),
            RegionError::FunctionOutside { function: "stray".into(), start }
        );
    }
    assert_eq!(
        refused(|region| region.functions.push(function("second", START + 8, 8))),
        RegionError::FunctionsOverlap { first: "f0".into(), second: "second".into() }
    );
}

#[test]
fn safepoints_must_agree_with_functions_and_cfi() {
    let at = |return_address| {
        move |region: &mut Region| region.safepoints[0].return_address = return_address
    };
    for return_address in [0, START, START + FUNCTION + 1] {
        assert_eq!(refused(at(return_address)), RegionError::SafepointOutside { return_address });
    }
    let (function, return_address) = (String::from("f0"), START + 0x20);
    assert_eq!(
        refused(|region| region.safepoints.push(region.safepoints[0].clone())),
        RegionError::SafepointTwice { function: function.clone(), return_address }
    );
    assert_eq!(
        refused(|region| region.eh_frame = Vec::new()),
        RegionError::SafepointWithoutCfi { function: function.clone(), return_address }
    );
    // The call's last byte still belongs to the row before.
    let late = refused(with_cfi(vec![(0x20, Cfi::CfaOffset(6 * W))]));
    assert_eq!(
        late.to_string(),
        format!(
            "function f0: safepoint 0x100020 has its CFA {} bytes up, its CFI says {}",
            6 * WORD,
            shown(CFA)
        )
    );
    let far = refused(with_cfi(vec![
        (1, Cfi::CfaOffset(6 * W)),
        (1, Cfi::Offset(arch::CALLEE_SAVED[1], -7 * W)),
    ]));
    assert!(matches!(far, RegionError::SafepointLayout { .. }), "{far}");
    const ODD: u32 = bytes_of(5) + bytes_of(1) / 2;
    let unaligned = refused(|region| region.safepoints[0].cfa_offset = ODD);
    assert!(
        matches!(unaligned, RegionError::SafepointLayout { cfa_offset: Some(ODD), .. }),
        "{unaligned}"
    );
    let by_scratch = refused(with_cfi(vec![(1, Cfi::CfaRegister(SCRATCH))]));
    assert!(matches!(by_scratch, RegionError::SafepointUnsupported { .. }), "{by_scratch}");
}

#[test]
fn frames_without_a_frame_pointer_are_taken_from_their_cfi() {
    let code = Code::new();
    let mut region = one();
    with_cfi(vec![(1, Cfi::CfaOffset(6 * W))])(&mut region);
    code.register(region).unwrap();
    assert_eq!(code.snapshot().safepoint(START + 0x20).unwrap().cfa_offset(), 6 * WORD);
}

#[test]
fn the_size_of_pushed_arguments_changes_nothing_for_a_walk() {
    let rules = |arguments: bool| {
        let mut instructions = vec![
            (1, Cfi::CfaOffset(2 * W)),
            (1, Cfi::Offset(arch::CALLEE_SAVED[1], -3 * W)),
            (8, Cfi::CfaOffset(6 * W)),
        ];
        if arguments {
            // `DW_CFA_GNU_args_size` is for landing pads. The CFA's offset includes it already.
            instructions.insert(2, (4, Cfi::ArgsSize(16)));
            instructions.push((0x30, Cfi::ArgsSize(0)));
        }
        let mut region = one();
        region.eh_frame = eh_frame([(START, FUNCTION as u32, instructions)]);
        let code = Code::new();
        code.register(region).unwrap();
        let snapshot = code.snapshot();
        (0..FUNCTION)
            .map(|at| snapshot.rule(START + at).unwrap().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let with_arguments = rules(true);
    assert_eq!(with_arguments, rules(false));
    let rule = &with_arguments[0x40];
    assert!(rule.starts_with(&format!("cfa=sp+{} ", 6 * WORD)), "{rule}");
    assert!(rule.contains(&format!("=[cfa-{}]", 3 * WORD)), "{rule}");
}

#[test]
fn slots_must_lie_in_the_frame() {
    for slot in [bytes_of(1) / 2, bytes_of(5), bytes_of(6), u32::MAX - bytes_of(1) + 1] {
        let refusal = refused(|region| region.safepoints[0].slots.push(slot));
        assert_eq!(
            refusal,
            RegionError::Slot {
                function: "f0".into(),
                return_address: START + 0x20,
                slot: slot.into()
            }
        );
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_the_name_of_its_function() {
    let (frame, limit) = (bytes_of(6), bytes_of(5));
    let refusal = refused(|region| region.max_frame = Some(limit));
    assert_eq!(refusal, RegionError::FrameTooLarge { function: "f0".into(), frame, limit });
    assert_eq!(
        refusal.to_string(),
        format!(
            "function f0 has a frame of {frame} bytes; {limit} are allowed without a check of its \
             own"
        )
    );
}

#[test]
fn native_rules_come_from_the_image_that_holds_the_code() {
    let code = Code::new();
    let start = system_call::code().0.start;
    code.register_native(start..start + 8, FrameKind::SystemCall, NativeRule::FromImage).unwrap();
    assert_eq!(code.snapshot().kind(start), Some(FrameKind::SystemCall));
    // The headers of an image hold no code.
    // SAFETY: asks where the program lies.
    #[cfg(windows)]
    let image_start = unsafe {
        windows_sys::Win32::System::LibraryLoader::GetModuleHandleW(std::ptr::null()) as usize
    };
    // SAFETY: zero bytes are a valid structure, which the call fills.
    #[cfg(not(windows))]
    let image_start = unsafe {
        let mut image: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(start as *const libc::c_void, &raw mut image), 0);
        image.dli_fbase as usize
    };
    let (start, end) = (image_start, image_start + 8);
    assert_eq!(
        code.register_native(start..end, FrameKind::Stub, NativeRule::FromImage),
        Err(CodeError::NotCovered { start, end })
    );
}

#[test]
fn readers_see_whole_versions_while_regions_come_and_go() {
    const ROUNDS: usize = 2000;
    let code = Code::new();
    // This region stays.
    code.register(one()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Relaxed: only ends the loop.
                while !done.load(Ordering::Relaxed) {
                    let snapshot = code.snapshot();
                    let safepoint =
                        snapshot.safepoint(START + 0x20).expect("the region that stays");
                    assert_eq!(slots(safepoint), [0, bytes_of(1)]);
                    for i in 1..8_u32 {
                        let return_address = START + i as usize * 0x1_0000 + 0x20;
                        let Some(safepoint) = snapshot.safepoint(return_address) else { continue };
                        assert_eq!(
                            (safepoint.cfa_offset(), slots(safepoint)),
                            ((4 + i as usize) * WORD, vec![bytes_of(i)])
                        );
                        let function =
                            snapshot.function(return_address - 1).expect("one version has both");
                        assert_eq!(function.name, "f0");
                    }
                }
            });
        }
        let mut registered = std::collections::VecDeque::new();
        for round in 0..ROUNDS {
            let i = 1 + round as u32 % 7;
            if registered.len() == 5 {
                code.unregister(registered.pop_front().unwrap()).unwrap();
            }
            let start = START + i as usize * 0x1_0000;
            registered.push_back(
                code.register(region(start, &[&[(0x20, bytes_of(2 + i), &[bytes_of(i)])]]))
                    .unwrap(),
            );
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn code_and_its_errors_can_cross_threads() {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Code>();
    send_and_sync::<CodeError>();
    send_and_sync::<Safepoint>();
}

// Cranelift has no code for 32 bits.
#[cfg(target_pointer_width = "64")]
#[test]
fn epilogues_that_cranelift_leaves_undescribed_are_added() {
    use gimli::write::{Address, EhFrame, EndianVec, FrameDescriptionEntry, FrameTable};
    const START: usize = 0x10_0000;
    // `mov rsp, rbp; pop rbp; ret`
    #[cfg(target_arch = "x86_64")]
    let (epilogue, ret) = ([0x48, 0x89, 0xec, 0x5d, 0xc3], 1);
    // `ldp x29, x30, [sp], #16; ret`
    #[cfg(target_arch = "aarch64")]
    let (epilogue, ret) = ([0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 0x03, 0x5f, 0xd6], 4);
    // Two returns, and a body behind the first.
    let mut code = vec![0x90; 32];
    let ends = [16, 32];
    for end in ends {
        code[end - epilogue.len()..end].copy_from_slice(&epilogue);
    }
    let mut entry = FrameDescriptionEntry::new(Address::Constant(START as u64), code.len() as u32);
    for (offset, instruction) in support::frame_record() {
        entry.add_instruction(offset, instruction);
    }
    stackmark_unwind::stack_map::cranelift::describe_epilogues(&mut entry, &code);
    let mut table = FrameTable::default();
    let cie = table.add_cie(support::cie());
    table.add_fde(cie, entry);
    let mut section = EhFrame::from(EndianVec::new(gimli::LittleEndian));
    table.write_eh_frame(&mut section).unwrap();
    let registered = Code::new();
    let eh_frame = section.0.into_vec();
    registered
        .register(Region { name: "f".into(), start: START, len: 32, eh_frame, ..Region::default() })
        .unwrap();
    let snapshot = registered.snapshot();
    let rule = |at: usize| snapshot.rule(START + at).unwrap().unwrap().to_string();
    let gone = format!("cfa=sp+{}", arch::CALL_PUSHES);
    for end in ends {
        assert!(rule(end - ret - 1).starts_with("cfa=fp+16 "), "{}", rule(end - ret - 1));
        let at_return = rule(end - ret).to_lowercase();
        assert!(at_return.starts_with(&gone), "{at_return}");
        assert!(!at_return.contains("[cfa-16]"), "{at_return}");
    }
    assert_eq!(rule(ends[0]), rule(ends[0] - ret - 1), "the body goes on");
}

#[test]
fn regions_come_and_go_in_bulk_all_of_them_or_none() {
    let code = Code::new();
    let at = |i: usize| self::at(START + i * 0x1000);
    let regions: Vec<Region> = (0..300).map(|i| at(i * 7 % 300)).collect();
    let before = code.snapshot();
    let ids = code.register_all(&regions).unwrap();
    assert_eq!((ids.len(), before.safepoint_tables().0), (300, 0));
    assert_eq!(code.snapshot().safepoint_tables().0, 300);
    // The last overlaps one that is there, or one of the same call; or contradicts itself.
    let mut wrong = at(401);
    wrong.safepoints[0].cfa_offset = bytes_of(5) + 1;
    for last in [at(299), at(400), wrong] {
        let refused = code.register_all(&[at(400), last]);
        assert!(matches!(refused, Err(CodeError::Overlap { .. } | CodeError::Region { .. })));
        assert!(code.snapshot().function(START + 400 * 0x1000).is_none());
    }
    // An unknown id, or one that comes twice.
    code.unregister(ids[5]).unwrap();
    for wrong in [&[ids[0], ids[5]], &[ids[1], ids[1]]] {
        assert_eq!(code.unregister_all(wrong), Err(CodeError::Unknown(wrong[1])));
        assert_eq!(code.snapshot().safepoint_tables().0, 299);
    }
    code.unregister_all(&[&ids[..5], &ids[6..]].concat()).unwrap();
    assert_eq!(code.snapshot().safepoint_tables().0, 0);
    assert_eq!(code.register_all(&[]), Ok(vec![]));
    assert_eq!(code.unregister_all(&[]), Ok(()));
}

/// A trace by a cache sees what is registered now, and the cache keeps what has not changed.
#[test]
fn a_cache_forgets_the_rules_of_code_that_has_gone_and_keeps_the_others() {
    use stackmark_unwind::{MemorySnapshot, RegisterSet, RuleCache, Unwinder, WalkError};

    let code = Code::new();
    let at = |i: usize| region(START + i * 0x1000, &[&[(0x20, bytes_of(4), &[])]]);
    let mut ids = code.register_all(&(0..50).map(at).collect::<Vec<_>>()).unwrap();
    let call = |i: usize| START + i * 0x1000 + 0x20;
    // Frame i of six words, as each function keeps them, called by frame i + 1.
    let stack = 0x7000_0000;
    let words: Vec<usize> = (0..51)
        .flat_map(|i| {
            let fp = stack + WORD * (6 * (i + 1) + 4);
            [0, 0, 0, 0, fp, if i < 49 { call(i + 1) } else { 0x10 }]
        })
        .collect();
    let memory = MemorySnapshot { start: stack, words };
    let walk = |cache: &mut RuleCache, snapshot: &stackmark_unwind::Snapshot<'_>| {
        let set = RegisterSet::new(call(0), stack, stack + 4 * WORD);
        let mut walk = Unwinder::new(snapshot, cache, &memory, (), set).at_return_address();
        let mut frames = 0;
        loop {
            match walk.next_frame() {
                Ok(Some(_)) => frames += 1,
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    };
    let nowhere = |pc| Some(WalkError::NoRule { pc });
    for mut cache in [RuleCache::new(), RuleCache::fixed(200), RuleCache::fixed(1 << 15)] {
        assert_eq!(walk(&mut cache, &code.snapshot()), (50, nowhere(0x10)));
        assert_eq!(cache.len(), 50);
        // Nothing is lost by code that comes.
        let more = code.register_all(&(60..70).map(at).collect::<Vec<_>>()).unwrap();
        assert_eq!(walk(&mut cache, &code.snapshot()), (50, nowhere(0x10)));
        assert_eq!(cache.len(), 50);
        let old = code.snapshot();
        code.unregister(ids[20]).unwrap();
        assert_eq!(walk(&mut cache, &code.snapshot()), (20, nowhere(call(20))));
        assert_eq!(cache.len(), 49, "only that one is lost");
        // The older snapshot still has it.
        assert_eq!(walk(&mut cache, &old), (50, nowhere(0x10)));
        assert_eq!(walk(&mut cache, &code.snapshot()), (20, nowhere(call(20))));
        // Other code at the same place: its frames are larger by a word, so that what comes above
        // is no return address.
        let mut other = at(20);
        other.safepoints.clear();
        other.eh_frame =
            eh_frame([(other.start, FUNCTION as u32, vec![(0, Cfi::CfaOffset(7 * W))])]);
        ids[20] = code.register(other).unwrap();
        assert_eq!(walk(&mut cache, &code.snapshot()), (21, None), "its return address is 0");
        code.unregister(ids[20]).unwrap();
        ids[20] = code.register(at(20)).unwrap();
        code.unregister_all(&more).unwrap();
        assert_eq!(walk(&mut cache, &code.snapshot()), (50, nowhere(0x10)));
    }
}
