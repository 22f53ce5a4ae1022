//! The page of all instances.

use miharu_api::InstanceUsage;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::super::columns::{Column, Content};
use super::super::figure::{Measure, short};
use super::super::graph;
use super::super::view::View;
use super::{Canvas, Tone};
use crate::text::width;

/// A graph gets no wider than it has slots.
const GRAPH: u16 = 60;
/// A name gets no wider, so that the figures stay in sight beside it.
const NAME: u16 = 60;
/// What is between two columns.
const GAP: u16 = 1;

pub(super) fn draw(view: &mut View, canvas: &mut Canvas<'_>, area: Rect) {
    let mut area = area;
    if area.height >= 8 {
        summary(view, canvas, area.y);
        area = Rect { y: area.y + 1, height: area.height - 1, ..area };
    }
    let room = usize::from(area.height.saturating_sub(1));
    let rows = view.rows();
    let marked = view.marked(&rows).map(|(row, _)| row);
    // The mark is never out of sight, and no room is left below the last row while there are rows above.
    let top = match marked {
        Some(row) if row < view.top => row,
        Some(row) if row >= view.top + room => row + 1 - room.min(row + 1),
        _ => view.top,
    };
    let top = top.min(rows.len().saturating_sub(room));
    let columns = arrange(&view.columns, area.width, |column| longest(view, column, &rows));
    let mut x = 0;
    for (column, width) in &columns {
        let mut style = canvas.style(Tone::Strong);
        if column.key == view.sort.column.key {
            style = style.add_modifier(Modifier::UNDERLINED);
        }
        if column.is_elastic() {
            canvas.put(x, area.y, column.short, *width, style);
        } else {
            canvas.put_right(x, area.y, column.short, *width, style);
        }
        x += width + GAP;
    }
    for (line, (row, instance)) in rows.iter().enumerate().skip(top).take(room).enumerate() {
        let Ok(line) = u16::try_from(line) else { break };
        let y = area.y + 1 + line;
        draw_row(view, canvas, &columns, instance, y);
        if marked == Some(row) {
            let row = Rect { x: 0, y, width: area.width, height: 1 };
            canvas.buffer.set_style(row, ratatui::style::Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if rows.is_empty() && room > 0 {
        let words =
            if view.usage.instances.is_empty() { "nothing runs here" } else { "nothing is like that" };
        canvas.put(0, area.y + 1, words, area.width, canvas.style(Tone::Faint));
    }
    view.top = top;
    view.room = room;
}

fn draw_row(
    view: &View,
    canvas: &mut Canvas<'_>,
    columns: &[(&'static Column, u16)],
    instance: &InstanceUsage,
    y: u16,
) {
    let mut x = 0;
    for (column, width) in columns {
        let tone = if instance.readable { tone(view, column, instance) } else { Tone::Faint };
        let style = canvas.style(tone);
        match column.content {
            Content::Text(_) => {
                let text = text(view, column, instance);
                canvas.put(x, y, &text, *width, style);
            }
            Content::Figure(figure, measure) => {
                let text = figure(instance, view.usage.time).map(|value| short(value, measure));
                canvas.put_right(x, y, &text.unwrap_or_default(), *width, style);
            }
            Content::Graph(figure) => {
                let line = graph::line(
                    view.recent(instance, figure),
                    usize::from(*width),
                    least(figure),
                    view.glyphs,
                );
                canvas.put(x, y, &line, *width, style);
            }
        }
        x += width + GAP;
    }
}

/// What a graph's bars are at least measured by: 5 % of a CPU, so that a sleeper's ticks do not look like work.
fn least(figure: &str) -> f32 {
    if figure == "cpu" { 0.05 } else { 0.0 }
}

/// The text of a column, as it can be shown.
fn text(view: &View, column: &Column, instance: &InstanceUsage) -> String {
    let Content::Text(text) = column.content else { return String::new() };
    match (column.key, text(instance)) {
        ("type", "container") => "ct".to_owned(),
        ("type", "virtual-machine") => "vm".to_owned(),
        // Not by colour alone.
        ("name", name) if !instance.readable => format!("! {}", view.glyphs.show(name)),
        (_, text) => view.glyphs.show(text),
    }
}

/// How wide the contents of an elastic column are.
fn longest(view: &View, column: &Column, rows: &[&InstanceUsage]) -> u16 {
    match column.content {
        Content::Graph(_) => GRAPH,
        Content::Figure(..) => column.width,
        Content::Text(_) => {
            let widest = rows.iter().map(|instance| width(&text(view, column, instance))).max();
            u16::try_from(widest.unwrap_or(0)).unwrap_or(NAME).min(NAME)
        }
    }
}

/// Which columns there is room for, and how wide each is.
fn arrange(
    columns: &[&'static Column],
    room: u16,
    longest: impl Fn(&'static Column) -> u16,
) -> Vec<(&'static Column, u16)> {
    let mut kept: Vec<(&'static Column, u16)> =
        columns.iter().map(|column| (*column, column.width)).collect();
    let needed = |kept: &[(&Column, u16)]| {
        kept.iter().map(|(_, width)| u32::from(*width)).sum::<u32>()
            + u32::from(GAP) * u32::try_from(kept.len().saturating_sub(1)).unwrap_or(u32::MAX)
    };
    while kept.len() > 1 && needed(&kept) > u32::from(room) {
        let last = kept.iter().enumerate().max_by_key(|(_, (column, _))| column.rank).map(|(at, _)| at);
        kept.remove(last.unwrap_or(0));
    }
    let mut left = u32::from(room).saturating_sub(needed(&kept));
    // Texts first, each as much as it holds; graphs share what is left.
    for (column, width) in &mut kept {
        if matches!(column.content, Content::Text(_)) {
            let more = u32::from(longest(column).saturating_sub(*width)).min(left);
            *width += u16::try_from(more).unwrap_or(0);
            left -= more;
        }
    }
    let mut graphs =
        u32::try_from(kept.iter().filter(|(c, _)| matches!(c.content, Content::Graph(_))).count())
            .unwrap_or(0);
    for (column, width) in &mut kept {
        if matches!(column.content, Content::Graph(_)) {
            let more = u32::from(GRAPH.saturating_sub(*width)).min(left / graphs.max(1));
            *width += u16::try_from(more).unwrap_or(0);
            left -= more;
            graphs = graphs.saturating_sub(1);
        }
    }
    kept
}

/// How loaded an instance is, by what a column tells of it.
fn tone(view: &View, column: &Column, instance: &InstanceUsage) -> Tone {
    let figure = |name: &str| instance.figures.get(name).copied();
    let of = |part: Option<f64>, whole: Option<f64>| Some(part? / whole.filter(|whole| *whole > 0.0)?);
    let cpus = figure("cpu_limit").or(view.usage.host_cpus.map(f64::from));
    let (share, busy, full) = match column.key {
        "cpu" | "cpu-graph" => (of(figure("cpu"), cpus), 0.6, 0.9),
        "throttled" => (figure("cpu_throttled"), 0.01, 0.25),
        "memory" | "memory-share" | "memory-graph" => {
            (of(figure("memory"), figure("memory_limit")), 0.75, 0.9)
        }
        "disk" | "disk-share" => (of(figure("filesystem_used"), figure("filesystem_size")), 0.8, 0.95),
        "cpu-pressure" => (figure("pressure_cpu"), 0.1, 0.4),
        "memory-pressure" => (figure("pressure_memory"), 0.1, 0.4),
        "io-pressure" => (figure("pressure_io"), 0.1, 0.4),
        _ => return Tone::Plain,
    };
    match share {
        Some(share) if share >= full => Tone::Full,
        Some(share) if share >= busy => Tone::Busy,
        _ if matches!(column.content, Content::Graph(_)) => Tone::Calm,
        _ => Tone::Plain,
    }
}

/// What all that are shown use together.
fn summary(view: &View, canvas: &mut Canvas<'_>, y: u16) {
    let rows = view.rows();
    let sum = |name: &str| rows.iter().filter_map(|i| i.figures.get(name).copied()).reduce(|a, b| a + b);
    let said = |name: &str, measure| sum(name).map(|value| short(value, measure));
    let of = |whole: Option<String>| whole.map(|whole| format!(" of {whole}")).unwrap_or_default();
    let cpus = view.usage.host_cpus.map(|cpus| short(cpus.into(), Measure::Cores) + "%");
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    let memory = view.usage.host_memory.map(|memory| short(memory as f64, Measure::Bytes));
    let rates = |first: Option<String>, then: Option<String>, words: [&str; 3]| {
        first.zip(then).map(|(first, then)| format!("{} {first} {} {then} {}", words[0], words[1], words[2]))
    };
    let parts = [
        said("cpu", Measure::Cores).map(|cpu| format!("CPU {cpu}%{}", of(cpus))),
        said("memory", Measure::Bytes).map(|used| format!("Memory {used}{}", of(memory))),
        rates(
            said("disk_read", Measure::Rate),
            said("disk_written", Measure::Rate),
            ["Disk/s", "read", "written"],
        ),
        rates(
            said("network_received", Measure::Rate),
            said("network_sent", Measure::Rate),
            ["Network/s", "received", "sent"],
        ),
    ];
    let mut x = 0;
    for part in parts.into_iter().flatten() {
        let wide = super::columns(&part);
        if x > 0 && x + wide > canvas.area.width {
            break;
        }
        x += canvas.put(x, y, &part, canvas.area.width - x, canvas.style(Tone::Plain)) + 3;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::columns::{COLUMNS, ON_SCREEN, parse};
    use super::*;

    #[test]
    fn columns_fit_at_every_width() {
        for room in 0..300 {
            for columns in [parse(ON_SCREEN).unwrap(), COLUMNS.iter().collect()] {
                let kept = arrange(&columns, room, |column| column.width + 20);
                let wide: u16 = kept.iter().map(|(_, width)| width + GAP).sum::<u16>() - GAP;
                assert!(wide <= room || kept.len() == 1, "{wide} of {room}");
                assert!(!kept.is_empty());
            }
        }
    }

    #[test]
    fn the_least_important_goes_first() {
        let letters = |room| {
            arrange(&parse(ON_SCREEN).unwrap(), room, |column| column.width)
                .iter()
                .map(|(column, _)| column.letter)
                .collect::<String>()
        };
        assert_eq!(letters(80), "necCmawRTN");
        assert_eq!(letters(40), "ncCm");
        assert_eq!(letters(20), "nc");
        assert_eq!(letters(3), "n");
        assert_eq!(letters(200), ON_SCREEN);
    }
}
