//! The invented functions of the model: their frames, their CFI and their safepoints.

use super::{RECORD, WORD};
use crate::memory::MAX_FRAME;
use stackmark_unwind::{
    Code, FRAME_POINTER, Function, RETURN_ADDRESS, Region, STACK_POINTER, Safepoint,
};

const FUNCTION_BYTES: usize = 64;
pub(super) const FUNCTIONS: usize = 16;
/// The offset of the safepoint's return address in each function.
const CALL_SITE: usize = 32;

/// The invented code, which is never executed. Instructions begin at even addresses.
#[repr(align(64))]
struct Invented([u8; FUNCTIONS * FUNCTION_BYTES]);
static CODE: Invented = Invented([0xcc; FUNCTIONS * FUNCTION_BYTES]);

/// The number of words of locals of function `f`, and the words that are live at its call.
pub(super) fn shape(f: usize) -> (usize, impl Iterator<Item = usize>) {
    let words = [2, 3, 4, 6, 8, 12, 16, 2, 24, 40, 5, 60, 90, 124, 7, 10][f];
    (words, (0..words).filter(move |i| (i + f).is_multiple_of(1 + f % 3)))
}

/// `.eh_frame` for frames with a frame pointer, whose record lies right below the CFA.
fn eh_frame(start: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record = |body: Vec<u8>| {
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
    };
    let [sp, fp, returns] =
        [STACK_POINTER, FRAME_POINTER, RETURN_ADDRESS].map(|register| register.0 as u8);
    // CIE: version 1, no augmentation, alignments 1 and minus a word. The record is stored: CFA =
    // sp + 2 words, fp at its beginning, the return address behind that.
    let minus_a_word = 0x80 - WORD as u8;
    let mut cie = vec![0, 0, 0, 0, 1, 0, 1, minus_a_word, returns, 0x0c, sp, RECORD as u8];
    cie.extend([0x80 | fp, 2, 0x80 | returns, 1, 0, 0, 0, 0]);
    record(cie);
    let cie_bytes = 4 + 20;
    let mut fde = Vec::from((cie_bytes as u32 + 4).to_le_bytes());
    fde.extend(start.to_le_bytes());
    fde.extend(len.to_le_bytes());
    // After 4 bytes: CFA = fp + 2 words.
    fde.extend([0x44, 0x0d, fp, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    record(fde);
    bytes.extend([0; 4]);
    bytes
}

pub(super) fn register(code: &Code) {
    let base = CODE.0.as_ptr() as usize;
    let functions = (0..FUNCTIONS).map(|f| Function {
        name: format!("invented{f}"),
        start: base + f * FUNCTION_BYTES,
        len: FUNCTION_BYTES,
        moves_return_address: f == FUNCTIONS - 1,
        ..Function::default()
    });
    let safepoints = (0..FUNCTIONS).map(|f| {
        let (words, live) = shape(f);
        Safepoint {
            return_address: return_address(f),
            cfa_offset: (words * WORD + RECORD) as u32,
            slots: live.map(|i| (i * WORD) as u32).collect(),
        }
    });
    code.register(Region {
        name: "invented".into(),
        start: base,
        len: CODE.0.len(),
        eh_frame: eh_frame(base, CODE.0.len()),
        functions: functions.collect(),
        safepoints: safepoints.collect(),
        max_frame: Some(MAX_FRAME as u32),
        ..Region::default()
    })
    .expect("a correct region");
}

pub(super) fn return_address(f: usize) -> usize {
    CODE.0.as_ptr() as usize + f * FUNCTION_BYTES + CALL_SITE
}
