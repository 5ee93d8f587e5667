//! The drawing of a picture.

use super::stack::{BarrierRole, FrameScan, Picture, PictureFrame};
use stackmark_unwind::FrameKind;
use svg::Document;
use svg::node::element::{Line, Rectangle, Text, Title};

const WIDTH: usize = 760;
const MARGIN: usize = 20;
/// The left edge of frames. Depths stand left of it.
const LEFT: usize = 90;
/// The right edge of frames. Names of barriers stand right of it.
const RIGHT: usize = 590;
const HEADER: usize = 64;
const ROW: usize = 22;
/// What explains the colours.
const LEGEND: usize = 92;
/// This many frames that look alike are drawn as one row, but for the first and the last of them.
const ALIKE: usize = 6;
/// A longer name is cut.
const NAME: usize = 48;

impl Picture {
    /// The picture as an SVG document, older frames above younger ones, as they lie in memory.
    /// Frames in a row that look alike are drawn as one.
    pub fn to_svg(&self) -> String {
        draw(self)
    }
}

/// One row: a frame, or several that look alike.
enum Row<'p> {
    Frame(&'p PictureFrame),
    Many(&'p [PictureFrame]),
}

impl<'p> Row<'p> {
    fn frames(&self) -> &'p [PictureFrame] {
        match self {
            Row::Frame(frame) => std::slice::from_ref(*frame),
            Row::Many(frames) => frames,
        }
    }
}

fn draw(picture: &Picture) -> String {
    let rows = rows(&picture.frames);
    let height = HEADER + rows.len() * ROW + LEGEND + MARGIN;
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 12)
        .add(Title::new(format!("The stack of goroutine {}", picture.goroutine)))
        .add(rectangle(0, 0, WIDTH, height, "#ffffff"))
        .add(text(MARGIN, 26, &heading(picture)).set("font-size", 15))
        .add(text(MARGIN, 46, &summary(picture)).set("fill", "#555555"));
    // Older frames lie at higher addresses, and so above.
    for (i, row) in rows.iter().rev().enumerate() {
        document = add_row(document, HEADER + i * ROW, row);
    }
    add_legend(document, HEADER + rows.len() * ROW + 24).to_string()
}

/// The rows, youngest first.
fn rows(frames: &[PictureFrame]) -> Vec<Row<'_>> {
    let alike = |a: &PictureFrame, b: &PictureFrame| {
        (&a.name, a.kind, a.scan, a.barrier) == (&b.name, b.kind, b.scan, b.barrier)
    };
    let mut rows = Vec::new();
    for run in frames.chunk_by(alike) {
        match run {
            [first, within @ .., last] if run.len() >= ALIKE => {
                rows.extend([Row::Frame(first), Row::Many(within), Row::Frame(last)]);
            }
            _ => rows.extend(run.iter().map(Row::Frame)),
        }
    }
    rows
}

fn heading(picture: &Picture) -> String {
    let Picture { goroutine, status, frames, .. } = picture;
    let status = format!("{status:?}").to_lowercase();
    let (count, plural) = (frames.len(), if frames.len() == 1 { "" } else { "s" });
    format!("goroutine {goroutine}, {status}: {count} frame{plural}")
}

fn summary(picture: &Picture) -> String {
    let used = picture.frames.first().map_or(0, |youngest| youngest.depth);
    let count = |scan| picture.frames.iter().filter(|frame| frame.scan == scan).count();
    let barriers = picture.frames.iter().filter(|frame| frame.barrier.is_some()).count();
    let cycle = match picture.cycle {
        0 => "never scanned".to_owned(),
        cycle => format!(
            "cycle {cycle}: {} young, {} frozen, {} unvisited, {barriers} barriers",
            count(FrameScan::Young),
            count(FrameScan::Frozen),
            count(FrameScan::Unvisited)
        ),
    };
    format!("{used} of {} bytes in use; {cycle}", picture.bytes)
}

fn colour(frame: &PictureFrame) -> &'static str {
    match (frame.kind, frame.scan) {
        (FrameKind::Managed, FrameScan::Young) => "#f6c26b",
        (FrameKind::Managed, FrameScan::Frozen) => "#a9d3ef",
        (FrameKind::Managed, FrameScan::Unvisited) => "#e4e4e4",
        _ => "#f7f7f7",
    }
}

fn add_row(document: Document, y: usize, row: &Row<'_>) -> Document {
    let frames = row.frames();
    let (Some(youngest), Some(oldest)) = (frames.first(), frames.last()) else { return document };
    let bytes = youngest.depth.saturating_sub(oldest.cfa_depth);
    let roots: usize = frames.iter().map(|frame| frame.roots).sum();
    let name = match row {
        Row::Frame(frame) => shorten(&frame.name),
        Row::Many(_) => format!("{} more of {}", frames.len(), shorten(&youngest.name)),
    };
    let sizes = match roots {
        0 => format!("{bytes} B"),
        1 => format!("{bytes} B, 1 root"),
        _ => format!("{bytes} B, {roots} roots"),
    };
    let baseline = y + ROW - 7;
    let document = document
        .add(
            rectangle(LEFT, y, RIGHT - LEFT, ROW, colour(youngest))
                .set("stroke", "#888888")
                .set("stroke-width", 0.5),
        )
        .add(
            text(LEFT - 8, baseline, &youngest.depth.to_string())
                .set("text-anchor", "end")
                .set("fill", "#555555"),
        )
        .add(text(LEFT + 8, baseline, &name))
        .add(text(RIGHT - 8, baseline, &sizes).set("text-anchor", "end").set("fill", "#555555"));
    // The return slot is the frame's oldest word.
    match oldest.barrier {
        None => document,
        Some(role) => {
            let (colour, name) = match role {
                BarrierRole::Frontier => ("#c62828", "frontier"),
                BarrierRole::Rescan => ("#1b5e20", "rescan barrier"),
            };
            document.add(barrier(y, colour)).add(text(RIGHT + 16, y + 4, name).set("fill", colour))
        }
    }
}

fn barrier(y: usize, colour: &str) -> Line {
    Line::new()
        .set("x1", LEFT - 6)
        .set("x2", RIGHT + 12)
        .set("y1", y)
        .set("y2", y)
        .set("stroke", colour)
        .set("stroke-width", 3)
}

fn add_legend(mut document: Document, y: usize) -> Document {
    let entries = [
        ("#f6c26b", "young: may have run since its visit; the rescan ends with these"),
        ("#a9d3ef", "frozen: visited, and has not run since"),
        ("#e4e4e4", "unvisited: the scan has not come to it"),
    ];
    for (i, (colour, meaning)) in entries.into_iter().enumerate() {
        let y = y + i * 20;
        document = document
            .add(rectangle(LEFT, y, 14, 14, colour).set("stroke", "#888888"))
            .add(text(LEFT + 22, y + 11, meaning));
    }
    document.add(
        text(LEFT, y + 74, "left: depth in bytes; a line: a barrier in the return slot below it")
            .set("fill", "#555555"),
    )
}

fn rectangle(x: usize, y: usize, width: usize, height: usize, fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", x)
        .set("y", y)
        .set("width", width)
        .set("height", height)
        .set("fill", fill)
}

fn text(x: usize, y: usize, content: &str) -> Text {
    // XML does not have these characters, not even escaped.
    let has = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let content: String = content.chars().filter(has).collect();
    Text::new(content).set("x", x).set("y", y)
}

fn shorten(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
