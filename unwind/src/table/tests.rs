//! Compiled rules against gimli's own evaluation, row by row: on generated CFI and on the images of this process.

use std::collections::BTreeMap;

use gimli::write::{
    Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame as WriteEhFrame, EndianVec, Expression,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, Encoding, Format, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindSection, UnwindTableRow, X86_64,
};
use object::{Object, ObjectSection};
use proptest::prelude::*;

use super::Table;
use crate::cfi::{CfiError, Section};
use crate::image;
use crate::rule::{Base, CALLEE_SAVED, Rule, Unsupported};

/// Whether `rule` says what `row` says, or refuses it for a reason that the row has.
fn agrees(row: &UnwindTableRow<usize>, signal: bool, rule: Rule) -> bool {
    let saved = |register| row.register(register);
    let (register, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => (Some(*register), *offset),
        CfaRule::Expression(_) => (None, 0),
    };
    match rule.cfa() {
        Err(None) => false,
        Err(Some(why)) => match why {
            Unsupported::SignalFrame => signal,
            Unsupported::CfaExpression => register.is_none(),
            Unsupported::CfaRegister => register.is_some_and(|r| r != X86_64::RSP && r != X86_64::RBP),
            Unsupported::CfaOffset => !(0..1 << 28).contains(&offset) || offset % 8 != 0,
            Unsupported::StackPointer => !matches!(saved(X86_64::RSP), None | Some(RegisterRule::ValOffset(0))),
            Unsupported::ReturnAddress => {
                !matches!(saved(X86_64::RA), Some(RegisterRule::Offset(-8) | RegisterRule::Undefined))
            }
            Unsupported::SavedFar => CALLEE_SAVED.into_iter().any(|register| {
                matches!(saved(register), Some(RegisterRule::Offset(at)) if !(-504..=-8).contains(&at) || at % 8 != 0)
            }),
            Unsupported::SavedByRule => CALLEE_SAVED.into_iter().any(|register| {
                use RegisterRule::{Offset, SameValue, Undefined};
                !matches!(saved(register), None | Some(Offset(_) | SameValue | Undefined))
            }),
        },
        Ok((base, at)) => {
            let base = if base == Base::StackPointer { X86_64::RSP } else { X86_64::RBP };
            !signal
                && (register, offset) == (Some(base), at as i64)
                && match saved(X86_64::RA) {
                    Some(RegisterRule::Offset(-8)) => !rule.is_oldest(),
                    Some(RegisterRule::Undefined) => rule.is_oldest(),
                    _ => false,
                }
                && CALLEE_SAVED.into_iter().enumerate().all(|(i, register)| match saved(register) {
                    None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => rule.saved(i) == 0,
                    Some(RegisterRule::Offset(at)) => rule.saved(i) as i64 == -at,
                    _ => false,
                })
        }
    }
}

/// What a comparison saw.
#[derive(Default, Debug)]
struct Census {
    rows: usize,
    refused: BTreeMap<String, usize>,
}

/// Compiles a section and compares it at the first, a middle and the last pc of each of gimli's rows.
fn compare(bytes: &[u8], address: u64) -> Census {
    let mut functions = Vec::new();
    Section::at(bytes, address)
        .functions(|function, _| {
            functions.push(function);
            Ok(())
        })
        .unwrap();
    let start = functions.iter().map(|function| function.start).min().unwrap();
    let end = functions.iter().map(|function| function.end).max().unwrap();
    let table = Table::build(functions).unwrap();
    assert_eq!(table.rule(start - 1), Rule::NONE);
    assert_eq!(table.rule(end), Rule::NONE);

    let mut census = Census::default();
    let mut section = EhFrame::new(bytes, LittleEndian);
    section.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut context = UnwindContext::new();
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        let mut rows = fde.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = rows.next_row().unwrap() {
            let (first, behind) = (row.start_address(), row.end_address().min(fde.end_address()));
            if first >= behind {
                continue;
            }
            census.rows += 1;
            for pc in [first, first + (behind - first) / 2, behind - 1] {
                let rule = table.rule(pc);
                let signal = fde.is_signal_trampoline();
                assert!(agrees(row, signal, rule), "pc {pc:#x}: {row:?} became {rule:?}");
            }
            if let Err(Some(why)) = table.rule(first).cfa() {
                *census.refused.entry(why.to_string()).or_default() += 1;
            }
        }
    }
    census
}

/// The files that are mapped as code in this process: the test, libc, libgcc.
fn own_images() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths: Vec<String> = maps
        .lines()
        .filter(|line| line.contains("r-xp"))
        .filter_map(|line| line.find('/').map(|at| line[at..].to_string()))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[test]
fn every_row_of_the_images_of_this_process_is_compiled_right_or_refused_for_a_reason() {
    let images = own_images();
    assert!(images.iter().any(|path| path.contains("libc.so")), "{images:?}");
    for path in images {
        let bytes = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let census = compare(section.data().unwrap(), section.address());
        let refused: usize = census.refused.values().sum();
        println!("{path}: {census:?}");
        assert!(refused * 100 <= census.rows, "{path}: {census:?}");
    }
}

#[test]
fn the_rules_of_a_range_of_a_loaded_image_are_those_of_its_file() {
    let path = std::env::current_exe().unwrap();
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = object::ObjectSymbol::address(
        &object::Object::symbols(&file)
            .find(|symbol| object::ObjectSymbol::name(symbol) == Ok("__jit_debug_register_code"))
            .unwrap(),
    );
    unsafe extern "C" {
        fn __jit_debug_register_code();
    }
    let here = __jit_debug_register_code as *const () as usize;
    let bias = here.wrapping_sub(symbol as usize);
    let section = file.section_by_name(".eh_frame").unwrap();
    let range = here - 0x3000..here + 0x5003;
    let mut expected = Vec::new();
    Section::at(section.data().unwrap(), section.address().wrapping_add(bias as u64))
        .functions(|function, _| {
            expected.extend(function.clipped(&(range.start as u64..range.end as u64)));
            Ok(())
        })
        .unwrap();
    expected.sort_by_key(|function| function.start);
    let found = image::functions(range).unwrap();
    assert!(found.len() > 10);
    assert_eq!(found, expected);
}

#[test]
fn an_address_in_no_image_is_named() {
    let address = 0x10;
    assert_eq!(image::functions(address..0x20), Err(image::ImageError::NoImage { address }));
    assert!(!image::loaded(address..0x20));
}

#[test]
fn overlapping_functions_are_refused() {
    let section = written(&[(0x1000, 0x20, vec![]), (0x1018, 0x20, vec![])]);
    let mut functions = Vec::new();
    Section::absolute(&section)
        .functions(|function, _| {
            functions.push(function);
            Ok(())
        })
        .unwrap();
    assert_eq!(Table::build(functions).unwrap_err(), CfiError::Overlap { pc: 0x1018 });
}

type Program = (u64, u32, Vec<(u32, Cfi)>);

fn written(functions: &[Program]) -> Vec<u8> {
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: 8 };
    let mut cie = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
    cie.add_instruction(Cfi::Cfa(X86_64::RSP, 8));
    cie.add_instruction(Cfi::Offset(X86_64::RA, -8));
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    for (start, len, program) in functions {
        let mut fde = FrameDescriptionEntry::new(Address::Constant(*start), *len);
        for (offset, instruction) in program {
            fde.add_instruction(*offset, instruction.clone());
        }
        table.add_fde(cie, fde);
    }
    let mut section = WriteEhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).unwrap();
    section.0.into_vec()
}

fn register() -> impl Strategy<Value = Register> {
    (0..17_u16).prop_map(Register)
}

fn offset() -> impl Strategy<Value = i32> {
    // The writer wants multiples of the data alignment factor.
    prop_oneof![8 => -16..0_i32, 1 => -80..4_i32, 1 => -100_000..100_000_i32].prop_map(|words| words * 8)
}

fn expression() -> impl Strategy<Value = Expression> {
    any::<i8>().prop_map(|offset| {
        let mut expression = Expression::new();
        expression.op_breg(X86_64::RSP, i64::from(offset));
        expression
    })
}

fn instruction() -> impl Strategy<Value = Cfi> {
    prop_oneof![
        4 => (0..64_i32).prop_map(|words| Cfi::CfaOffset(words * 8)),
        1 => any::<u16>().prop_map(|offset| Cfi::CfaOffset(i32::from(offset))),
        1 => (-100..0_i32).prop_map(|words| Cfi::CfaOffset(words * 8)),
        3 => prop::sample::select(vec![X86_64::RSP, X86_64::RBP]).prop_map(Cfi::CfaRegister),
        1 => register().prop_map(Cfi::CfaRegister),
        1 => (register(), 0..1000_i32).prop_map(|(register, words)| Cfi::Cfa(register, words * 8)),
        6 => (register(), offset()).prop_map(|(register, offset)| Cfi::Offset(register, offset)),
        1 => (register(), offset()).prop_map(|(register, offset)| Cfi::ValOffset(register, offset)),
        1 => register().prop_map(Cfi::Restore),
        1 => register().prop_map(Cfi::SameValue),
        1 => register().prop_map(Cfi::Undefined),
        1 => (register(), register()).prop_map(|(a, b)| Cfi::Register(a, b)),
        1 => expression().prop_map(Cfi::CfaExpression),
        1 => (register(), expression()).prop_map(|(register, expression)| Cfi::Expression(register, expression)),
        1 => (register(), expression()).prop_map(|(register, expression)| Cfi::ValExpression(register, expression)),
        1 => (0..256_u32).prop_map(Cfi::ArgsSize),
    ]
}

/// A program whose CFA is a register and an offset whenever an instruction changes only one of the two (anything
/// else is malformed), and that restores what it has remembered.
fn program() -> impl Strategy<Value = (u32, Vec<(u32, Cfi)>)> {
    prop::collection::vec((0..40_u32, instruction(), prop::bool::weighted(0.1)), 0..24).prop_map(|steps| {
        let mut at = 0;
        let mut expression = false;
        let mut program = Vec::new();
        for (advance, instruction, remembered) in steps {
            at += advance;
            match instruction {
                Cfi::CfaOffset(_) | Cfi::CfaRegister(_) if expression => continue,
                Cfi::CfaExpression(_) if !remembered => expression = true,
                Cfi::Cfa(..) if !remembered => expression = false,
                _ => {}
            }
            if remembered {
                program.push((at, Cfi::RememberState));
            }
            program.push((at, instruction));
            if remembered {
                at += 3;
                program.push((at, Cfi::RestoreState));
            }
        }
        (at + 1, program)
    })
}

proptest! {
    #[test]
    fn generated_cfi_is_compiled_as_gimli_evaluates_it(programs in prop::collection::vec((program(), 0..100_u32), 1..12)) {
        let mut start = 0x10_0000;
        let functions: Vec<Program> = programs
            .into_iter()
            .map(|((len, program), gap)| {
                let function = (start, len, program);
                start += u64::from(len + gap);
                function
            })
            .collect();
        let census = compare(&written(&functions), 0);
        prop_assert!(census.rows >= functions.len());
    }

    #[test]
    fn mutated_cfi_is_compiled_or_refused_and_never_a_panic(
        (len, program) in program(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut section = written(&[(0x10_0000, len, program)]);
        for (at, byte) in mutations {
            let at = at.index(section.len());
            section[at] = byte;
        }
        section.truncate(cut.index(section.len() * 2).max(1));
        let mut functions = Vec::new();
        let range = 0x10_0000..0x20_0000;
        let read = Section::absolute(&section).functions(|function, _| {
            functions.extend(function.clipped(&range));
            Ok(())
        });
        if read.is_ok() && let Ok(table) = Table::build(functions) {
            for pc in range.start..range.start + 256 {
                let _ = table.rule(pc).cfa();
            }
        }
    }
}
