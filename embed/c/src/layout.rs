//! The sizes, offsets and numbers that the header repeats, compared with the header: a program in C
//! prints the header's.

use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use stackmark::mark_sweep::AllocationSlot;
use stackmark::stack::asm::layout;
use stackmark::stack::{MAX_FRAME, YIELD};

use crate::abi::CODES;
use crate::caller::{FOREIGN_CALL_WORDS, LibCallTable};
use crate::code::{FunctionTable, RegionTable, SafepointTable};
use crate::collector::CollectorConfigTable;
use crate::heap::HeapOptionsTable;
use crate::heap_table::{HeapCountsTable, HeapFunctions};
use crate::host::HostTable;
use crate::numbers::NUMBERS;
use crate::runtime::{ConfigTable, FrameTable};
use crate::statistics::{FIELDS, StatisticsTable};

/// Expressions in C and their values in Rust.
type Values = Vec<(String, usize)>;

/// The size and the offsets of a struct.
macro_rules! layout_of {
    ($values:ident, $c:literal, $rust:ty: $($field:ident)*) => {
        $values.push((concat!("sizeof(", $c, ")").into(), size_of::<$rust>()));
        $($values.push((
            concat!("offsetof(", $c, ", ", stringify!($field), ")").into(),
            offset_of!($rust, $field),
        ));)*
    };
}

fn expected() -> Values {
    let mut values = Values::new();
    layout_of!(values, "stackmark_config", ConfigTable: size max_stack move_limit barriers
        ignore_protection report_stop_after_ms scan_few_frames move_every_poll poison poll_always
        max_frame);
    layout_of!(values, "stackmark_host", HostTable: size user stack_overflow fatal uncaught source
        warn machine_attached machine_detached goroutine_exited at_poll destroyed);
    layout_of!(values, "stackmark_function", FunctionTable: size name start length
        moves_return_address reserved file lines line_count);
    layout_of!(values, "stackmark_safepoint", SafepointTable: size return_address slots cfa_offset
        slot_count);
    layout_of!(values, "stackmark_region", RegionTable: size name start length eh_frame
        eh_frame_length functions function_count safepoints safepoint_count max_frame
        hide_from_debugger hide_from_unwinder vectors eh_frame_address llvm_stackmaps
        llvm_stackmaps_length llvm_stackmaps_bias);
    layout_of!(values, "stackmark_lib_call_record", LibCallTable: size function arguments result
        error reserved);
    layout_of!(values, "stackmark_frame", FrameTable: size pc depth cfa_depth kind reserved);
    layout_of!(values, "stackmark_heap_options", HeapOptionsTable: size limit poison huge_pages);
    layout_of!(values, "stackmark_heap_counts", HeapCountsTable: size allocated_bytes
        objects_marked objects_swept live_bytes resident_bytes);
    layout_of!(values, "stackmark_heap_functions", HeapFunctions: size user resolve mark is_marked
        object_size trace begin_cycle end_cycle finish_sweep set_trigger allocated_since_cycle
        counts prefetch release keep_marks clear_marks);
    layout_of!(values, "stackmark_collector_config", CollectorConfigTable: size workers
        memory_limit nursery percent write_barrier generational whole_scans verify
        collect_every_poll);
    layout_of!(values, "stackmark_statistics", StatisticsTable: size);
    for (field, offset) in FIELDS {
        values.push((format!("offsetof(stackmark_statistics, {field})"), *offset));
    }
    let foreign_call = FOREIGN_CALL_WORDS * size_of::<usize>();
    values.push(("sizeof(stackmark_foreign_call)".into(), foreign_call));
    for (name, value) in [
        ("MAX_FRAME", MAX_FRAME),
        ("YIELD", YIELD),
        ("G_STACK_LIMIT", layout::G_STACK_LIMIT),
        ("G_STACK_HI", layout::G_STACK_HI),
        ("G_STACK_LO", layout::G_STACK_LO),
        ("G_USER", layout::G_USER),
        ("G_RESULTS", layout::G_RESULTS),
        ("G_MACHINE_WORD", layout::G_MACHINE_WORD),
        ("G_LANGUAGE", layout::G_LANGUAGE),
        ("RESULT_WORDS", layout::RESULT_WORDS),
        ("LANGUAGE_WORDS", 2),
        ("SLOT_CURSOR", AllocationSlot::CURSOR),
        ("SLOT_END", AllocationSlot::END),
        ("VERSION_MAJOR", env!("CARGO_PKG_VERSION_MAJOR").parse().expect("a number")),
        ("VERSION_MINOR", env!("CARGO_PKG_VERSION_MINOR").parse().expect("a number")),
        ("VERSION_PATCH", env!("CARGO_PKG_VERSION_PATCH").parse().expect("a number")),
    ] {
        values.push((format!("STACKMARK_{name}"), value));
    }
    values.extend(CODES.iter().map(|(name, code)| ((*name).to_owned(), *code as usize)));
    values.extend(NUMBERS.iter().map(|(name, number)| ((*name).to_owned(), *number)));
    values
}

/// What a program that includes the header prints for these expressions.
fn printed(values: &Values) -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = std::env::temp_dir().join(format!("stackmark-layout-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (source, program) = (directory.join("layout.c"), directory.join("layout"));
    let mut text = String::from("#include <stackmark.h>\n#include <stdio.h>\nint main(void) {\n");
    for (expression, _) in values {
        text +=
            &format!("    printf(\"%s = %zu\\n\", \"{expression}\", (size_t)({expression}));\n");
    }
    text += "    return 0;\n}\n";
    std::fs::write(&source, text).expect("the source is written");
    let mut compiler = Command::new("cc");
    compiler.arg("-I").arg(place.join("include")).arg("-o").arg(&program).arg(&source);
    assert!(compiler.status().expect("a C compiler").success());
    let output = Command::new(&program).output().expect("the program runs");
    std::fs::remove_dir_all(&directory).expect("it was made above");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_header_has_the_layout_of_the_library() {
    let values = expected();
    let printed = printed(&values);
    let lines = values.iter().map(|(expression, value)| format!("{expression} = {value}\n"));
    for (line, found) in lines.zip(printed.split_inclusive('\n')) {
        assert_eq!(found, line, "what the header says, and what the library says");
    }
    assert_eq!(printed.lines().count(), values.len());
}

/// A name and what stands behind it.
fn named(line: &str) -> Option<(&str, &str)> {
    match line.trim().strip_prefix("#define ") {
        Some(definition) => definition.split_once(' '),
        None => line.split_once(" = "),
    }
}

/// Names that the header gives a number: enumerators, and macros without parameters.
fn numbered(header: &str) -> Vec<&str> {
    let is_number = |text: &str| {
        let number = text.trim().split([',', ' ', '/']).next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    // Several enumerators may stand in one line.
    let pieces = header.lines().flat_map(|line| line.trim_start_matches("enum {").split(", "));
    pieces
        .filter_map(named)
        .map(|(name, number)| (name.trim(), number))
        .filter(|(name, number)| name.starts_with("STACKMARK_") && is_number(number))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_number_of_the_header_is_compared() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/stackmark.h");
    let header = std::fs::read_to_string(header).expect("the header");
    let names = numbered(&header);
    assert!(names.len() > 50, "{names:?}");
    let compared = expected();
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| compared.iter().all(|(expression, _)| expression != name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
