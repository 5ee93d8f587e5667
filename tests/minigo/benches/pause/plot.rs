//! The plot: medians against depth, both axes logarithmic.

use super::{Results, Run, median};
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// Writes both plots side by side.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(file: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, (1200, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    draw(&halves[0], "longest stop of a collection, median", results, |run| &run.stops)?;
    draw(&halves[1], "longest gap seen by the deep thread, median", results, |run| &run.gaps)?;
    area.present()?;
    Ok(())
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    results: &Results,
    what: fn(&Run) -> &Vec<u64>,
) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((100f64..1_000_000f64).log_scale(), (1f64..1_000_000f64).log_scale())?;
    chart.configure_mesh().x_desc("frames").y_desc("microseconds").draw()?;
    let mut names: Vec<&str> = results.keys().map(|(name, _)| *name).collect();
    names.dedup();
    for (i, name) in names.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = results
            .iter()
            .filter(|((n, _), _)| *n == name)
            .map(|((_, depth), run)| (*depth as f64, (median(what(run)) as f64 / 1e3).max(1.0)))
            .collect();
        let color = Palette99::pick(i).mix(1.0);
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}
