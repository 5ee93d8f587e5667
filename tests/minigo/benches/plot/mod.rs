//! Plots with two logarithmic axes, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::ops::Range;
use std::path::Path;

/// Points joined by a line; all coordinates are above 0.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One plot: its title, the names of its axes, its curves.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) below: &'a str,
    pub(crate) left: &'a str,
    pub(crate) curves: Vec<Curve<'a>>,
}

/// Writes plots side by side.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(file: &Path, plots: &[Plot<'_>]) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, (600 * plots.len() as u32, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    for (part, plot) in area.split_evenly((1, plots.len())).iter().zip(plots) {
        draw(part, plot)?;
    }
    area.present()?;
    Ok(())
}

/// The slope of the line that fits the points best, both axes logarithmic.
#[allow(dead_code, reason = "not every benchmark that draws looks for it")]
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (mx, my) =
        (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let covariance: f64 = logs.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    covariance / logs.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>()
}

/// Whole powers of ten around the values.
fn powers(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::MAX, f64::min).log10().floor();
    let most = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
    10f64.powf(least)..10f64.powf(most.max(least + 1.0))
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, plot: &Plot<'_>) -> Result<(), Box<dyn Error>> {
    let points = || plot.curves.iter().flat_map(|curve| &curve.points);
    let x = powers(points().map(|point| point.0));
    let y = powers(points().map(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart.configure_mesh().x_desc(plot.below).y_desc(plot.left).draw()?;
    for (i, curve) in plot.curves.iter().enumerate() {
        let points = &curve.points;
        let color = Palette99::pick(i).mix(1.0);
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}
