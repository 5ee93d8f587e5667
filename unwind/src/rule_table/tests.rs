//! Compares compiled rules with gimli's own evaluation, row by row, for generated CFI and for the
//! images of this process.

use std::collections::BTreeMap;

use gimli::write::{
    Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame as WriteEhFrame,
    EndianVec, Expression, FrameDescriptionEntry, FrameTable,
};
use gimli::{
    BaseAddresses, CieOrFde, EhFrame, Encoding, Format, LittleEndian, Register, UnwindSection,
    constants,
};
use object::{Object, ObjectSection};
use proptest::prelude::*;

use super::RuleTable;
use crate::arch::{ADDRESS_SIZE, CALL_PUSHES, FRAME_POINTER, RETURN_ADDRESS, STACK_POINTER, WORD};
use crate::cfi::{CfiError, FunctionRows, Section};
use crate::image;
use crate::memory::Memory;
use crate::os_images;
use crate::registers::RegisterSet;
use crate::rule::{
    CfiRows, ExpressionError, PackedRule, Recovered, Recovery, Unsupported, UnwindRule,
};

#[path = "../../tests/support/reference.rs"]
mod reference;

/// A memory that holds something at every address.
struct Everywhere;

impl Memory for Everywhere {
    fn read(&self, address: usize) -> Option<usize> {
        Some(reference::memory(address as u64) as usize)
    }
}

/// What a rule yields, in the words of the reference.
pub(crate) fn outcome(
    rule: &UnwindRule<'_>,
    values: &[u64; reference::REGISTERS],
) -> Result<reference::Outcome, ExpressionError> {
    let mut context = RegisterSet::new(0, 0, 0);
    for (number, value) in values.iter().enumerate() {
        context.set(Register(number as u16), *value as usize);
    }
    let recovery = rule.evaluate(&context, &Everywhere)?;
    let registers =
        std::array::from_fn(|number| match recovery.register(Register(number as u16)) {
            _ if recovery.oldest => reference::State::Unknown,
            Recovered::Unknown => reference::State::Unknown,
            Recovered::Same => reference::State::Same,
            Recovered::At(address) => reference::State::At(address as u64),
            Recovered::Value(value) => reference::State::Value(value as u64),
        });
    let Recovery { cfa, oldest, signal_frame, .. } = recovery;
    Ok(reference::Outcome { cfa: cfa as u64, oldest, signal_frame, registers })
}

/// What a comparison saw.
#[derive(Default, Debug)]
struct Census {
    rows: usize,
    /// Rows that neither gimli nor the crate can evaluate.
    refused: usize,
    unpacked: BTreeMap<String, usize>,
}

/// Compiles a section and compares it at the first, a middle and the last pc of each of gimli's
/// rows.
fn compare(bytes: &[u8], address: u64) -> Census {
    let mut functions = Vec::new();
    let mut unpacked = CfiRows::default();
    Section::at(bytes, address)
        .functions(&mut unpacked, |function, _| {
            functions.push(function?);
            Ok(())
        })
        .unwrap();
    let start = functions.iter().map(|function| function.start).min().unwrap();
    let end = functions.iter().map(|function| function.end).max().unwrap();
    let table = RuleTable::build(functions, unpacked).unwrap();
    assert_eq!(table.rule(start - 1), PackedRule::NONE);
    assert_eq!(table.rule(end), PackedRule::NONE);

    let mut census = Census::default();
    let mut section = EhFrame::new(bytes, LittleEndian);
    section.set_address_size(ADDRESS_SIZE);
    section.set_vendor(reference::VENDOR);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
        for (first, behind, row) in &reference::rows(&section, &bases, &fde).unwrap() {
            let (first, behind) = (*first, *behind);
            census.rows += 1;
            let signal = fde.is_signal_trampoline();
            for pc in [first, first + (behind - first) / 2, behind - 1] {
                let values = reference::registers(pc);
                let expected = reference::evaluate(&section, row, signal, &values);
                let whole = table.unwind_rule(pc).expect("a covered pc has a rule");
                let single = Section::at(bytes, address);
                let by_program = single.rule_by_program(fde.offset(), pc).unwrap().unwrap();
                let single = single.rule_at(fde.offset(), pc).unwrap().unwrap();
                for rule in [whole, single, by_program] {
                    match (&expected, outcome(&rule, &values)) {
                        (Ok(expected), Ok(outcome)) => {
                            assert_eq!(outcome, *expected, "pc {pc:#x}: {row:?} became {rule}")
                        }
                        (Err(_), Err(_)) => census.refused += 1,
                        (expected, outcome) => {
                            panic!("pc {pc:#x}: {row:?}: {expected:?}, {rule}: {outcome:?}")
                        }
                    }
                }
            }
            if let Err(Some(why)) = table.rule(first).cfa() {
                *census.unpacked.entry(why.to_string()).or_default() += 1;
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
#[cfg_attr(
    any(target_arch = "arm", windows),
    ignore = "compilers write no CFI there that is loaded"
)]
fn every_row_of_the_images_of_this_process_is_evaluated_as_gimli_does() {
    let images = own_images();
    assert!(images.iter().any(|path| path.contains("libc.so")), "{images:?}");
    for path in images {
        let bytes = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let census = compare(section.data().unwrap(), section.address());
        let unpacked: usize = census.unpacked.values().sum();
        println!("{path}: {census:?}");
        // Where a call pushes nothing, functions that have not saved their return address yet are
        // walked by rows: in the innermost frame alone. And compilers save registers one by one.
        let first = census.unpacked.get(&Unsupported::ReturnAddress.to_string()).copied();
        let few = match CALL_PUSHES {
            0 => (unpacked - first.unwrap_or(0)) * 8 <= census.rows,
            _ => unpacked * 20 <= census.rows,
        };
        assert!(census.refused == 0 && few, "{path}: {census:?}");
    }
}

#[test]
#[cfg_attr(
    any(target_arch = "arm", windows),
    ignore = "compilers write no CFI there that is loaded"
)]
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
    let mut unpacked = CfiRows::default();
    Section::at(section.data().unwrap(), section.address().wrapping_add(bias as u64))
        .functions(&mut unpacked, |function, _| {
            expected.extend(function?.clipped(&(range.start as u64..range.end as u64)));
            Ok(())
        })
        .unwrap();
    expected.sort_by_key(|function| function.start);
    let (found, rows_of_found) = os_images::functions(range).unwrap();
    assert!(found.len() > 10);
    // Rows have other numbers in other tables.
    let shown = |functions: &[FunctionRows], rows: &CfiRows| -> Vec<_> {
        let rule =
            |(at, rule): &(u64, PackedRule)| (*at, rows.resolve(*rule).map(|r| r.to_string()));
        let function =
            |f: &FunctionRows| (f.start, f.end, f.rows.iter().map(rule).collect::<Vec<_>>());
        functions.iter().map(function).collect()
    };
    assert_eq!(shown(&found, &rows_of_found), shown(&expected, &unpacked));
}

#[test]
fn an_address_in_no_image_is_named() {
    let address = 0x10;
    assert_eq!(
        os_images::functions(address..0x20).unwrap_err(),
        image::ImageError::NoImage { address }
    );
    assert!(!os_images::holds_any(address..0x20));
}

#[test]
fn overlapping_functions_are_refused() {
    let section = written(&[(0x1000, 0x20, vec![]), (0x1018, 0x20, vec![])]);
    let mut functions = Vec::new();
    let mut unpacked = CfiRows::default();
    Section::absolute(&section)
        .functions(&mut unpacked, |function, _| {
            functions.push(function?);
            Ok(())
        })
        .unwrap();
    assert_eq!(
        RuleTable::build(functions, unpacked).unwrap_err(),
        CfiError::Overlap { pc: 0x1018 }
    );
}

/// Bytes of a word, as offsets are counted.
const W: i32 = WORD as i32;

type Program = (u64, u32, Vec<(u32, Cfi)>);

fn written(functions: &[Program]) -> Vec<u8> {
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: ADDRESS_SIZE };
    let mut cie = CommonInformationEntry::new(encoding, 1, -(WORD as i8), RETURN_ADDRESS);
    cie.add_instruction(Cfi::Cfa(STACK_POINTER, W));
    cie.add_instruction(Cfi::Offset(RETURN_ADDRESS, -W));
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
    let registers = (0..reference::REGISTERS.min(17) as u16).map(Register);
    let walked: Vec<_> = registers.filter(|register| reference::is_walked(*register)).collect();
    prop::sample::select(walked)
}

fn offset() -> impl Strategy<Value = i32> {
    // The writer wants multiples of the data alignment factor.
    prop_oneof![8 => -16..0_i32, 1 => -80..4_i32, 1 => -100_000..100_000_i32]
        .prop_map(|words| words * W)
}

fn expression() -> impl Strategy<Value = Expression> {
    let offset = || any::<i8>().prop_map(|words| i64::from(words) * i64::from(W));
    let realigned = (offset(), any::<bool>()).prop_map(|(offset, dereferenced)| {
        let mut expression = Expression::new();
        expression.op_breg(FRAME_POINTER, offset);
        if dereferenced {
            expression.op_deref();
        }
        expression
    });
    let operation = prop_oneof![
        3 => (register(), any::<i32>())
            .prop_map(|(register, offset)| (None, Some((register, i64::from(offset))))),
        6 => prop::sample::select(vec![
            constants::DW_OP_dup, constants::DW_OP_drop, constants::DW_OP_over,
            constants::DW_OP_swap, constants::DW_OP_rot, constants::DW_OP_abs,
            constants::DW_OP_and, constants::DW_OP_div, constants::DW_OP_minus,
            constants::DW_OP_mod, constants::DW_OP_mul, constants::DW_OP_neg,
            constants::DW_OP_not, constants::DW_OP_or, constants::DW_OP_plus,
            constants::DW_OP_shl, constants::DW_OP_shr, constants::DW_OP_shra,
            constants::DW_OP_xor, constants::DW_OP_eq, constants::DW_OP_ge,
            constants::DW_OP_gt, constants::DW_OP_le, constants::DW_OP_lt,
            constants::DW_OP_ne, constants::DW_OP_deref, constants::DW_OP_lit3,
            constants::DW_OP_lit31, constants::DW_OP_nop,
        ]).prop_map(|operation| (Some(operation), None)),
    ];
    let any = prop::collection::vec(operation, 1..12).prop_map(|operations| {
        let mut expression = Expression::new();
        expression.op_breg(STACK_POINTER, W.into());
        for (plain, register) in operations {
            match (plain, register) {
                (Some(operation), _) => expression.op(operation),
                (_, Some((register, offset))) => expression.op_breg(register, offset),
                _ => {}
            }
        }
        expression
    });
    prop_oneof![1 => realigned, 2 => any]
}

fn instruction() -> impl Strategy<Value = Cfi> {
    prop_oneof![
        4 => (0..64_i32).prop_map(|words| Cfi::CfaOffset(words * W)),
        1 => any::<u16>().prop_map(|offset| Cfi::CfaOffset(i32::from(offset))),
        1 => (-100..0_i32).prop_map(|words| Cfi::CfaOffset(words * W)),
        3 => prop::sample::select(vec![STACK_POINTER, FRAME_POINTER]).prop_map(Cfi::CfaRegister),
        1 => register().prop_map(Cfi::CfaRegister),
        1 => (register(), 0..1000_i32).prop_map(|(register, words)| Cfi::Cfa(register, words * W)),
        6 => (register(), offset()).prop_map(|(register, offset)| Cfi::Offset(register, offset)),
        1 => (register(), offset()).prop_map(|(register, offset)| Cfi::ValOffset(register, offset)),
        1 => register().prop_map(Cfi::Restore),
        1 => register().prop_map(Cfi::SameValue),
        1 => register().prop_map(Cfi::Undefined),
        1 => (register(), register()).prop_map(|(a, b)| Cfi::Register(a, b)),
        1 => expression().prop_map(Cfi::CfaExpression),
        1 => (register(), expression()).prop_map(|(register, at)| Cfi::Expression(register, at)),
        1 => (register(), expression()).prop_map(|(register, at)| Cfi::ValExpression(register, at)),
        1 => (0..256_u32).prop_map(Cfi::ArgsSize),
    ]
}

/// A program whose CFA is a register and an offset whenever an instruction changes only one of the
/// two (anything else is malformed), and that restores what it has remembered.
fn program() -> impl Strategy<Value = (u32, Vec<(u32, Cfi)>)> {
    prop::collection::vec((0..40_u32, instruction(), prop::bool::weighted(0.1)), 0..24).prop_map(
        |steps| {
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
        },
    )
}

proptest! {
    #[test]
    fn generated_cfi_is_compiled_as_gimli_evaluates_it(
        programs in prop::collection::vec((program(), 0..100_u32), 1..12),
    ) {
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
        let mut unpacked = CfiRows::default();
        let read = Section::absolute(&section).functions(&mut unpacked, |function, _| {
            functions.extend(function?.clipped(&range));
            Ok(())
        });
        if read.is_ok() && let Ok(table) = RuleTable::build(functions, unpacked) {
            for pc in range.start..range.start + 256 {
                let _ = table.rule(pc).cfa();
            }
        }
    }
}
