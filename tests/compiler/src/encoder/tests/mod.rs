//! The bytes of each encoder are what an assembler makes of the text.

mod dialects;

use std::path::PathBuf;
use std::process::Command;

use super::{Emitted, Encoder, Frame, Reg, Test, every};
use dialects::Dialect;

/// What an encoder is asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Prologue(Frame),
    Epilogue(Frame),
    Constant(Reg, usize),
    Copy(Reg, Reg),
    Address(Reg, Reg, u32),
    Load(Reg, Reg, u32),
    Store(Reg, Reg, u32),
    Add(Reg, Reg),
    Subtract(Reg, Reg),
    Multiply(Reg, Reg),
    Compare(Reg, Reg),
    Branch(Test, Label),
    Jump(Label),
    Call(Label),
    CallAt(Reg),
    Define(Label),
    /// So many bytes that are 0.
    Gap(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Before,
    Behind,
}

const CONSTANTS: [usize; 6] = [0, 1, 0x7fff, 0x1_2345, 0x8000_0000, 0xfedc_ba98];
const OFFSETS: [u32; 6] = [0, 8, 0x78, 0x80, 0x3f8, 0xff8];

/// Every instruction, with many operands.
fn all(encoder: &dyn Encoder) -> Vec<Asked> {
    let (machine, mut all) = (encoder.machine(), vec![]);
    let kept = (0..machine.saved.len()).map(Reg::Kept);
    let arguments = (0..machine.arguments).map(Reg::Argument);
    for frame in [
        Frame { bytes: machine.record + 16, saved: 0, vectors: false },
        Frame { bytes: machine.record + 0x1f0, saved: 2, vectors: false },
        Frame { bytes: 0x400, saved: machine.saved.len(), vectors: !machine.vectors.is_empty() },
    ] {
        all.extend([Asked::Prologue(frame), Asked::Epilogue(frame)]);
    }
    for to in [Reg::A, Reg::B, Reg::Callee] {
        all.extend(CONSTANTS.map(|value| Asked::Constant(to, value)));
    }
    if machine.word == 8 {
        let value = 0x1234_5678_9abc_def0_u64 as usize;
        all.extend([Reg::A, Reg::B].map(|to| Asked::Constant(to, value)));
    }
    let others = [Reg::A, Reg::B, Reg::Result, Reg::Landed(1), Reg::Goroutine];
    for reg in others.into_iter().chain(kept.clone()).chain(arguments.clone()) {
        all.extend([Asked::Copy(Reg::Goroutine, reg), Asked::Copy(reg, Reg::B)]);
        all.extend([Asked::Load(reg, Reg::StackPointer, 8), Asked::Store(reg, Reg::B, 16)]);
    }
    for base in [Reg::StackPointer, Reg::FramePointer, Reg::B].into_iter().chain(kept.clone()) {
        for offset in OFFSETS {
            all.extend([Asked::Load(Reg::A, base, offset), Asked::Store(Reg::A, base, offset)]);
            all.push(Asked::Address(Reg::A, base, offset));
        }
    }
    for by in [Reg::A, Reg::B].into_iter().chain(kept) {
        all.extend([Asked::Add(Reg::A, by), Asked::Subtract(Reg::A, by)]);
        all.extend([Asked::Multiply(Reg::A, by), Asked::Compare(Reg::A, by)]);
        all.extend([Asked::Compare(by, Reg::B)]);
    }
    all.extend([Asked::CallAt(Reg::Callee), Asked::Define(Label::Before)]);
    for gap in [0, 64, 0x8000] {
        all.push(Asked::Gap(gap));
        for label in [Label::Before, Label::Behind] {
            let tests = [Test::Equal, Test::Differ, Test::Below];
            all.extend(tests.map(|test| Asked::Branch(test, label)));
            all.extend([Asked::Jump(label), Asked::Call(label)]);
        }
    }
    all.push(Asked::Define(Label::Behind));
    all
}

/// What an encoder makes of it.
fn encoded(encoder: &dyn Encoder, all: &[Asked]) -> Vec<u8> {
    let (mut out, mut labels, mut places) = (Emitted::default(), vec![], vec![]);
    for asked in all {
        match *asked {
            Asked::Prologue(frame) => encoder.prologue(&mut out, &frame),
            Asked::Epilogue(frame) => encoder.epilogue(&mut out, &frame),
            Asked::Constant(to, value) => encoder.constant(&mut out, to, value),
            Asked::Copy(to, from) => encoder.copy(&mut out, to, from),
            Asked::Address(to, base, offset) => encoder.address(&mut out, to, base, offset),
            Asked::Load(to, base, offset) => encoder.load(&mut out, to, base, offset),
            Asked::Store(from, base, offset) => encoder.store(&mut out, from, base, offset),
            Asked::Add(to, by) => encoder.add(&mut out, to, by),
            Asked::Subtract(to, by) => encoder.subtract(&mut out, to, by),
            Asked::Multiply(to, by) => encoder.multiply(&mut out, to, by),
            Asked::Compare(a, b) => encoder.compare(&mut out, a, b),
            Asked::Branch(test, label) => places.push((encoder.branch(&mut out, test), label)),
            Asked::Jump(label) => places.push((encoder.jump(&mut out), label)),
            Asked::Call(label) => places.push((encoder.call(&mut out), label)),
            Asked::CallAt(callee) => encoder.call_at(&mut out, callee),
            Asked::Define(label) => labels.push((label, out.bytes.len())),
            Asked::Gap(bytes) => out.put(&vec![0; bytes]),
        }
    }
    for (at, label) in places {
        let to = labels.iter().find(|(defined, _)| *defined == label).expect("defined").1;
        encoder.patch(&mut out.bytes, at, to);
    }
    out.bytes
}

/// The bytes of the text; `None`, and said so, if the assembler is not there.
fn assembled(dialect: &Dialect, name: &str, text: &str) -> Option<Vec<u8>> {
    let file = |ending: &str| -> PathBuf {
        let name = format!("stackmark_{name}_{}.{ending}", std::process::id());
        std::env::temp_dir().join(name)
    };
    let (source, object, raw) = (file("s"), file("o"), file("bin"));
    let run = |tool: &str, change: &dyn Fn(&mut Command)| {
        let mut command = Command::new(format!("{}{tool}", dialect.prefix));
        change(&mut command);
        match command.output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{command:?}: {said}");
                true
            }
            Err(error) => {
                println!("skipped: {command:?}: {error}");
                false
            }
        }
    };
    std::fs::write(&source, text).expect("a directory for what is temporary");
    let made = run("as", &|command| {
        command.args(dialect.options).arg("-o").arg(&object).arg(&source);
    }) && run("objcopy", &|command| {
        command.args(["-O", "binary", "-j", ".text"]).arg(&object).arg(&raw);
    });
    let bytes = made.then(|| std::fs::read(&raw).expect("written just now"));
    for file in [source, object, raw] {
        let _ = std::fs::remove_file(file);
    }
    bytes
}

/// Compares what an encoder makes with what an assembler makes.
fn compare(name: &str, encoder: &dyn Encoder, dialect: &Dialect) {
    let asked = all(encoder);
    let code = encoded(encoder, &asked);
    let lines = asked.iter().map(|asked| dialect.text(encoder.machine(), asked) + "\n");
    let text = dialect.begin.to_owned() + "\n" + &lines.clone().collect::<String>();
    let Some(expected) = assembled(dialect, name, &text) else { return };
    if code == expected {
        return;
    }
    // Which one of them differs: as many bytes as it adds.
    let mut from = 0;
    for count in 1..=asked.len() {
        let labels = [Label::Before, Label::Behind].map(Asked::Define);
        let to = encoded(encoder, &[&asked[..count], &labels].concat()).len();
        assert_eq!(code.get(from..to), expected.get(from..to), "{name}: {:?}", asked[count - 1]);
        from = to;
    }
    panic!("{name}: {} bytes, and {} of the assembler", code.len(), expected.len());
}

#[test]
fn every_encoder_makes_what_an_assembler_makes() {
    for (name, encoder) in every() {
        let dialect = match name {
            "amd64" => &dialects::AMD64,
            "amd64_windows" => &dialects::AMD64_WINDOWS,
            "i686" => &dialects::I686,
            "arm64" => &dialects::ARM64,
            "arm64_signs" => &dialects::ARM64_SIGNS,
            "arm" => &dialects::ARM,
            "thumb" => &dialects::THUMB,
            other => panic!("no dialect for {other}"),
        };
        compare(name, &*encoder, dialect);
    }
}
