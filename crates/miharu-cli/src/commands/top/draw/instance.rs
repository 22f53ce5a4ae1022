//! The page of one instance: all its figures, and how each went in the last hour.

use miharu_api::InstanceUsage;
use miharu_api::usage::{FIGURES, FULL, NEW, OFF};
use ratatui::layout::Rect;

use super::super::figure::{Measure, long};
use super::super::graph;
use super::super::view::{View, key};
use super::{Canvas, Tone};

/// How wide names of figures, the figures, and their peaks are.
const NAMES: u16 = 20;
const VALUES: u16 = 12;
const PEAKS: u16 = 17;
/// Slots that the server keeps.
const SLOTS: u16 = 120;

pub(super) fn draw(view: &mut View, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = view.rows();
    let Some((_, instance)) = view.marked(&rows) else {
        canvas.put(
            0,
            area.y,
            "It is gone, or no longer among those that are shown.",
            area.width,
            canvas.style(Tone::Busy),
        );
        view.room = 0;
        return;
    };
    let mut y = area.y;
    for (line, tone) in head(view, instance) {
        if y >= area.bottom() {
            break;
        }
        canvas.put(0, y, &line, area.width, canvas.style(tone));
        y += 1;
    }
    let figures: Vec<_> = FIGURES.iter().filter(|(name, _)| instance.figures.contains_key(*name)).collect();
    let room = usize::from(area.bottom().saturating_sub(y));
    let top = view.inner_top.min(figures.len().saturating_sub(room));
    for (name, unit) in figures.iter().skip(top).take(room) {
        let value = instance.figures.get(*name).copied().unwrap_or_default();
        draw_figure(view, canvas, instance, name, (value, Measure::from(*unit)), y);
        y += 1;
    }
    (view.inner_top, view.room) = (top, room);
}

/// What it is, and what there is to say of its history.
fn head(view: &View, instance: &InstanceUsage) -> Vec<(String, Tone)> {
    let show = |text: &str| view.glyphs.show(text);
    let mut lines =
        vec![(format!("{}  in project {}", show(&instance.name), show(&instance.project)), Tone::Strong)];
    let mut facts = format!("{}, run by {}", show(&instance.instance_type), show(&instance.runtime));
    if !matches!(instance.location.as_str(), "" | "none") {
        facts.push_str(&format!(" on {}", show(&instance.location)));
    }
    if let Some(start) = instance.boot_time {
        facts.push_str(&format!(", up {}", long((view.usage.time - start).max(0.0), Measure::Age)));
    }
    if !instance.source.is_empty() {
        facts.push_str(&format!(", figures from {}", show(&instance.source)));
    }
    lines.push((facts, Tone::Plain));
    if !instance.readable {
        let name = show(&instance.name);
        lines.push((format!("Its figures cannot be read: `miharu info {name}` says why."), Tone::Busy));
    }
    lines.push(match history(view, instance) {
        None => ("The last hour is asked for".to_owned(), Tone::Faint),
        Some(Err(words)) => {
            (format!("No history: {}", show(words.lines().next().unwrap_or_default())), Tone::Busy)
        }
        Some(Ok(history)) => match history.missing.as_deref() {
            None => ("The last hour, and its peak".to_owned(), Tone::Faint),
            Some(OFF) => ("No history is kept: the server key ui.history is off".to_owned(), Tone::Faint),
            Some(FULL) => ("No history: more instances run than it is kept of".to_owned(), Tone::Faint),
            Some(NEW) => ("No history yet".to_owned(), Tone::Faint),
            Some(other) => (format!("No history: {}", show(other)), Tone::Faint),
        },
    });
    lines
}

fn history<'a>(view: &'a View, instance: &InstanceUsage) -> Option<Result<&'a miharu_api::History, &'a str>> {
    let (of, history) = view.history.as_ref()?;
    (*of == key(instance)).then(|| history.as_ref().map_err(String::as_str))
}

fn draw_figure(
    view: &View,
    canvas: &mut Canvas<'_>,
    instance: &InstanceUsage,
    name: &str,
    (value, measure): (f64, Measure),
    y: u16,
) {
    canvas.put(0, y, words(name), NAMES - 1, canvas.style(Tone::Plain));
    canvas.put_right(NAMES, y, &long(value, measure), VALUES, canvas.style(Tone::Strong));
    let history = history(view, instance).and_then(Result::ok);
    let Some(values) = history.and_then(|history| history.figures.get(name)) else { return };
    let from = NAMES + VALUES + 2;
    let room = canvas.area.width.saturating_sub(from + PEAKS + 1).min(SLOTS);
    if room < 8 {
        return;
    }
    let least = if name == "cpu" { 0.05 } else { 0.0 };
    let line = graph::line(values, room.into(), least, view.glyphs);
    canvas.put(from, y, &line, room, canvas.style(Tone::Calm));
    if let Some(peak) = values.iter().flatten().copied().filter(|v| v.is_finite()).reduce(f32::max) {
        // The slot that goes on holds less than the whole of what is used at the moment.
        let peak = format!("peak {}", long(f64::from(peak).max(value), measure));
        canvas.put_right(from + room + 1, y, &peak, PEAKS, canvas.style(Tone::Faint));
    }
}

/// What people call a figure.
fn words(name: &str) -> &str {
    match name {
        "cpu" => "CPU",
        "cpu_user" => "  user",
        "cpu_system" => "  system",
        "cpu_limit" => "  limit",
        "cpu_throttled" => "  throttled",
        "memory" => "Memory",
        "memory_cached" => "  cached",
        "memory_limit" => "  limit",
        "swap" => "Swap",
        "disk_read" => "Disk read",
        "disk_written" => "Disk written",
        "disk_reads" => "  reads",
        "disk_writes" => "  writes",
        "network_received" => "Network received",
        "network_sent" => "Network sent",
        "network_errors" => "  errors",
        "filesystem_used" => "Root file system",
        "filesystem_size" => "  size",
        "processes" => "Processes",
        "pressure_cpu" => "Waited for CPU",
        "pressure_memory" => "Waited for memory",
        "pressure_io" => "Waited for I/O",
        "oom_kills" => "OOM kills",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_name_that_fits() {
        for (name, _) in FIGURES {
            assert_ne!(words(name), *name);
            assert!(words(name).len() < NAMES.into());
        }
    }
}
