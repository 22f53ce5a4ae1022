//! Charts of what `make bench-growth` measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const RAW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explanation/performance/growth.json");
/// The picture's size, and the room around the drawing: left, top, right, bottom.
const SIZE: (f64, f64) = (640.0, 320.0);
const ROOM: (f64, f64, f64, f64) = (70.0, 44.0, 24.0, 46.0);

/// Draws all charts.
pub(crate) fn draw(folder: &Path) -> Result<()> {
    let raw: Value = serde_json::from_slice(&fs::read(RAW).with_context(|| RAW.to_owned())?)?;
    let cpu = |figures: &Value| Some(median(figures.pointer("/scrape/cpu_us")?.as_array()?)? / 1e3);
    let memory = |figures: &Value| Some(figures["rss_bytes"].as_f64()? / 1e6);
    let cpu = points(&raw, cpu);
    let memory = points(&raw, memory);
    ensure!(cpu.len() > 2 && memory.len() > 2, "{RAW} has no containers");
    line(&folder.join("growth-cpu.svg"), "CPU time of a scrape, milliseconds", &cpu)?;
    line(&folder.join("growth-memory.svg"), "Resident memory of miharud, megabytes", &memory)
}

/// A figure by the number of containers.
fn points(raw: &Value, figure: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    let rows = raw["rows"].as_array().into_iter().flatten();
    rows.filter(|row| row["scenario"] == "containers")
        .filter_map(|row| {
            let count = row["case"].as_str()?.strip_suffix(" containers")?.parse().ok()?;
            Some((count, figure(&row["figures"])?))
        })
        .collect()
}

fn median(samples: &[Value]) -> Option<f64> {
    let mut samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// One line through points, from zero on both axes.
fn line(path: &Path, title: &str, points: &[(f64, f64)]) -> Result<()> {
    let (left, top, right, bottom) = ROOM;
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let (width, height) = (round_up(most(|point| point.0)), round_up(most(|point| point.1)));
    let x = |value: f64| left + value / width * (SIZE.0 - left - right);
    let y = |value: f64| SIZE.1 - bottom - value / height * (SIZE.1 - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" role=\"img\"><title>{title}, by the \
         number of containers</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <g font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#333333\">\n<text x=\"{left}\" y=\"24\" \
         font-size=\"15\">{}</text>\n",
        SIZE.0, SIZE.1, SIZE.0, SIZE.1, title
    );
    for step in 0..=4 {
        let (across, up) = (width * f64::from(step) / 4.0, height * f64::from(step) / 4.0);
        writeln!(
            svg,
            "<path d=\"M{left} {0:.1}H{1}\" stroke=\"#dddddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{up}</text>\n\
             <text x=\"{4:.1}\" y=\"{5}\" text-anchor=\"middle\">{across}</text>",
            y(up),
            SIZE.0 - right,
            left - 8.0,
            y(up) + 4.0,
            x(across),
            SIZE.1 - bottom + 20.0
        )?;
    }
    let corners: Vec<String> =
        points.iter().map(|(count, value)| format!("{:.1},{:.1}", x(*count), y(*value))).collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>",
        corners.join(" ")
    )?;
    for (count, value) in points {
        writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"#1f6feb\"/>", x(*count), y(*value))?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">containers</text>\n</g>\n</svg>",
        x(width / 2.0),
        SIZE.1 - 8.0
    )?;
    fs::write(path, svg).with_context(|| path.display().to_string())
}

/// The next of 1, 2, 3, 4, 5, 8 and 10 times a power of ten, of which each has a quarter that can be read.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(value)
}
