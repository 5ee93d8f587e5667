//! A plot with two logarithmic axes, as SVG.

use std::fmt::Write as _;

/// Points that belong together.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: &'a [(f64, f64)],
}

/// What is drawn.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) below: &'a str,
    pub(crate) left: &'a str,
    pub(crate) curves: &'a [Curve<'a>],
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 60.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 130.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#3d8b37", "#7a4ea3"];

/// Whole powers of ten around the values.
fn powers(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let least = values.clone().fold(f64::MAX, f64::min).log10().floor() as i32;
    let most = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil() as i32;
    (least, most.max(least + 1))
}

fn tick(power: i32) -> String {
    if (-3..4).contains(&power) { format!("{}", 10f64.powi(power)) } else { format!("1e{power}") }
}

impl Plot<'_> {
    /// The file's text.
    pub(crate) fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| curve.points);
        let (x0, x1) = powers(points().map(|p| p.0));
        let (y0, y1) = powers(points().map(|p| p.1));
        let at = |value: f64, from: i32, to: i32| {
            (value.log10() - f64::from(from)) / f64::from(to - from)
        };
        let x = |value: f64| LEFT + at(value, x0, x1) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - at(value, y0, y1) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        // Writing to a string does not fail.
        let mut line = |text: String| _ = writeln!(out, "{text}");
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        line(format!(
            "<text x=\"{middle}\" y=\"22\" text-anchor=\"middle\" font-size=\"15\">{}</text>",
            self.title
        ));
        line(format!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 18.0,
            self.below
        ));
        let height = (TOP + HEIGHT - BOTTOM) / 2.0;
        line(format!(
            "<text x=\"20\" y=\"{height}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {height})\">{}</text>",
            self.left
        ));
        for power in x0..=x1 {
            let at = x(10f64.powi(power));
            line(format!("<path d=\"M{at:.1} {TOP}V{}\" stroke=\"#ddd\"/>", HEIGHT - BOTTOM));
            let below = HEIGHT - BOTTOM + 18.0;
            line(format!(
                "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                tick(power)
            ));
        }
        for power in y0..=y1 {
            let at = y(10f64.powi(power));
            line(format!("<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT));
            let text = at + 4.0;
            line(format!(
                "<text x=\"{}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                tick(power)
            ));
        }
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            let path: Vec<String> =
                curve.points.iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
            line(format!(
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join("L")
            ));
            for p in curve.points {
                line(format!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(p.0),
                    y(p.1)
                ));
            }
            if let Some(last) = curve.points.last() {
                let (right, beside) = (x(last.0) + 8.0, y(last.1) + 4.0);
                line(format!(
                    "<text x=\"{right:.1}\" y=\"{beside:.1}\" fill=\"{colour}\">{}</text>",
                    curve.name
                ));
            }
        }
        out += "</svg>\n";
        out
    }
}
