//! Pictures of stacks: a fixed one, exactly, and live ones in the middle of a scan and behind it.
//!
//! `STACKMARK_PICTURES=DIR` writes them to a directory: the guide shows the live ones.

use compiler::{Embedder, Ignoring};
use parking_lot::Mutex;
use proptest::prelude::*;
use stackmark_stack::unwind::{Code, FrameKind};
use stackmark_stack::{
    BarrierRole, Caller, Config, CycleDriver, FrameScan, Left, Machine, NextCycle, Picture,
    PictureFrame, Runtime, ScanScope, Status,
};
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

/// Compares with what is committed, or replaces it.
fn compare(name: &str, svg: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(name);
    if std::env::var_os("STACKMARK_PICTURES").is_some() {
        std::fs::write(&file, svg).expect("a file of the tests");
    }
    let expected = std::fs::read_to_string(&file).expect("a file of the tests");
    assert_eq!(svg, expected, "{}", file.display());
}

/// Parses an SVG document, and yields all its text.
fn text_of(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).unwrap_or_else(|e| panic!("{e}:\n{svg}"));
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
    texts.filter_map(|node| node.text()).map(|text| text.trim().to_owned() + "\n").collect()
}

fn frame(name: &str, kind: FrameKind, depth: usize, size: usize) -> PictureFrame {
    PictureFrame {
        name: name.into(),
        kind,
        depth,
        cfa_depth: depth - size,
        roots: 1,
        scan: FrameScan::Frozen,
        barrier: None,
    }
}

/// A picture with everything that there is.
fn fixed() -> Picture {
    let mut frames = vec![
        PictureFrame {
            scan: FrameScan::Young,
            roots: 0,
            ..frame("(call out)", FrameKind::SystemCall, 784, 56)
        },
        PictureFrame {
            scan: FrameScan::Young,
            barrier: Some(BarrierRole::Frontier),
            ..frame("main.leaf<int, \"&\">", FrameKind::Managed, 728, 48)
        },
    ];
    for i in 0..9 {
        frames.push(frame("main.descend", FrameKind::Managed, 680 - 48 * i, 48));
    }
    frames[10].barrier = Some(BarrierRole::Rescan);
    frames.push(PictureFrame {
        scan: FrameScan::Unvisited,
        roots: 3,
        ..frame("main.main", FrameKind::Managed, 248, 168)
    });
    frames.push(PictureFrame {
        scan: FrameScan::Unvisited,
        roots: 0,
        ..frame("(the goroutine's beginning)", FrameKind::Entry, 80, 80)
    });
    Picture { goroutine: 7, status: Status::Foreign, bytes: 2048, cycle: 3, frames }
}

#[test]
fn a_fixed_picture_is_drawn_as_it_was() {
    let svg = fixed().to_svg();
    compare("fixed.svg", &svg);
    let text = text_of(&svg);
    for wanted in [
        "goroutine 7, foreign: 13 frames",
        "main.leaf<int, \"&\">",
        "frontier",
        "rescan barrier",
        "6 more of main.descend",
        "784 of 2048 bytes in use; cycle 3: 2 young, 9 frozen, 2 unvisited, 2 barriers",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
}

#[test]
fn a_stack_without_frames_is_drawn() {
    let picture =
        Picture { goroutine: 1, status: Status::Dead, bytes: 0, cycle: 0, frames: Vec::new() };
    assert!(text_of(&picture.to_svg()).contains("never scanned"));
}

proptest! {
    #[test]
    fn any_picture_is_well_formed_xml(
        names in prop::collection::vec(any::<String>(), 0..40),
        depths in prop::collection::vec(any::<(usize, usize)>(), 40),
        barriers in prop::collection::vec(0..3usize, 40),
    ) {
        let mut picture = fixed();
        picture.frames = names
            .iter()
            .zip(depths)
            .zip(barriers)
            .map(|((name, (depth, cfa_depth)), barrier)| PictureFrame {
                depth,
                cfa_depth,
                barrier: [None, Some(BarrierRole::Frontier), Some(BarrierRole::Rescan)][barrier],
                ..frame(name, FrameKind::Managed, 100, 50)
            })
            .collect();
        text_of(&picture.to_svg());
    }
}

/// What the native function at the bottom of the recursion does.
type AtBottom = Box<dyn FnMut(Caller<'_>) + Send>;
static AT_BOTTOM: Mutex<Option<AtBottom>> = Mutex::new(None);
/// One test at a time: they share AT_BOTTOM and the stubs.
static ONE: Mutex<()> = Mutex::new(());

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    AT_BOTTOM.lock().as_mut().expect("the test has set it")(caller);
    0
}

/// Recurses `n` deep and calls `at_bottom` there, with the driver of cycles.
fn recurse(n: usize, mut at_bottom: impl FnMut(Caller<'_>, &mut CycleDriver) + Send + 'static) {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, bottom, 0);
    let config = Config { scan_few_frames: true, ..Config::default() };
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
    let mut cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
    *AT_BOTTOM.lock() = Some(Box::new(move |caller| at_bottom(caller, &mut cycles)));
    let object = Box::new(7_usize);
    let mut argument = [n, &raw const *object as usize, 0];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: the entry is compiled code that keeps the contracts.
    let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) };
    assert!(matches!(machine.run(goroutine.expect("memory")), Left::Exited));
    *AT_BOTTOM.lock() = None;
}

/// Checks a live picture against what every one must be.
fn check(picture: &Picture, n: usize) {
    text_of(&picture.to_svg());
    let recursion = picture.frames.iter().filter(|frame| frame.name == "rec").count();
    assert_eq!(recursion, n + 1, "{picture:?}");
    assert_eq!(picture.frames[0].kind, FrameKind::SystemCall);
    assert_eq!(picture.frames.last().map(|frame| frame.kind), Some(FrameKind::Entry));
    for pair in picture.frames.windows(2) {
        assert_eq!(pair[0].cfa_depth, pair[1].depth, "frames lie one above the other");
    }
}

fn write(name: &str, picture: &Picture) {
    if let Some(directory) = std::env::var_os("STACKMARK_PICTURES") {
        let file = Path::new(&directory).join(name);
        std::fs::write(file, picture.to_svg()).expect("the directory that was asked for");
    }
}

/// Whether all frames with this knowledge are younger than all others of the list.
fn ascend(picture: &Picture, order: &[FrameScan]) {
    let mut found: Vec<FrameScan> = picture.frames.iter().map(|frame| frame.scan).collect();
    found.dedup();
    assert_eq!(found, order, "{picture:?}");
}

#[test]
fn a_picture_shows_how_far_a_scan_has_come() {
    let _one = ONE.lock();
    const N: usize = 40;
    recurse(N, |caller, cycles| {
        let runtime = caller.runtime().clone();
        let goroutine = caller.handle();
        let take = || runtime.picture(&goroutine).expect("a walk").expect("it stands still");
        let picture = take();
        check(&picture, N);
        ascend(&picture, &[FrameScan::Unvisited]);
        // ANCHOR: picture
        caller.foreign(|| {
            cycles.handshake();
            assert!(cycles.begin_scanning(1, ScanScope::Whole));
            cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
            // A worker has visited some of the frozen frames.
            while take().frames.iter().filter(|f| f.scan == FrameScan::Frozen).count() < 9 {
                assert!(runtime.scan_frozen().expect("a stack that can be walked"));
            }
        });
        let picture = take();
        // ANCHOR_END: picture
        check(&picture, N);
        ascend(&picture, &[FrameScan::Young, FrameScan::Frozen, FrameScan::Unvisited]);
        let last = picture.frames.iter().rposition(|frame| frame.scan == FrameScan::Young);
        let frontiers = picture.frames.iter().enumerate();
        let frontiers = frontiers.filter(|(_, f)| f.barrier == Some(BarrierRole::Frontier));
        assert_eq!(frontiers.map(|(at, _)| Some(at)).collect::<Vec<_>>(), [last]);
        write("scanning.svg", &picture);

        caller.foreign(|| {
            while runtime.scan_frozen().expect("a stack that can be walked") {}
            cycles.stop_world(|world| {
                let visited = world.rescan_dirty().expect("a stack that can be walked");
                let picture = world.picture(&goroutine).expect("a walk").expect("it is alive");
                check(&picture, N);
                ascend(&picture, &[FrameScan::Young, FrameScan::Frozen]);
                let young = picture.frames.iter().filter(|f| f.scan == FrameScan::Young).count();
                assert_eq!(young as u64, visited.frames, "what was visited again");
                let barriers = picture.frames.iter().filter_map(|frame| frame.barrier);
                let barriers: Vec<_> = barriers.collect();
                // Those beyond the lowest are placed when it is hit.
                assert!(!barriers.is_empty(), "{picture:?}");
                assert!(barriers.iter().all(|role| *role == BarrierRole::Rescan), "{picture:?}");
                write("scanned.svg", &picture);
                world.end_scanning(NextCycle::IsWhole);
            });
        });
    });
}
