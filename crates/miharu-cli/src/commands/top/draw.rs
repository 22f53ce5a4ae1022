//! The screen of `miharu top`: what stands where.
//!
//! ratatui compares each picture with the one before and writes only what differs, so that little goes over a slow line.

mod help;
mod instance;
mod list;

use std::time::Instant;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::graph::Glyphs;
use super::view::{Flow, Page, View};
use crate::colour::Colours;
use crate::output;
use crate::text::{fit, width};

/// A screen that is drawn.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    glyphs: Glyphs,
    colours: Colours,
}

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    Faint,
    Strong,
    Calm,
    Busy,
    Full,
}

/// Draws all of it.
pub(super) fn draw(view: &mut View, frame: &mut Frame<'_>, colours: Colours, now: Instant) {
    let area = frame.area();
    let mut canvas = Canvas { buffer: frame.buffer_mut(), area, glyphs: view.glyphs, colours };
    if area.width == 0 || area.height == 0 {
        return;
    }
    title(view, &mut canvas);
    let body = Rect { y: 1, height: area.height.saturating_sub(2), ..area };
    match view.page {
        Page::List | Page::Typing => list::draw(view, &mut canvas, body),
        Page::Instance => instance::draw(view, &mut canvas, body),
        Page::Help => help::draw(view, &mut canvas, body),
    }
    if area.height > 1 {
        foot(view, &mut canvas, area.height - 1, now);
    }
}

/// The first line: whose figures these are, and how they are shown; what there is no room for goes, the last first.
fn title(view: &View, canvas: &mut Canvas<'_>) {
    let style = canvas.style(Tone::Strong);
    let server = canvas.glyphs.show(&view.usage.server);
    let head = if server.is_empty() { "miharu top".to_owned() } else { format!("miharu top  {server}") };
    let used = canvas.put(0, 0, &head, canvas.area.width, style);
    let meant = view.rows().len();
    let all = view.usage.instances.len();
    let count = match (meant, all) {
        (1, 1) => "1 instance".to_owned(),
        (meant, all) if meant == all => format!("{all} instances"),
        (meant, all) => format!("{meant} of {all} instances"),
    };
    let order = match view.sort.order {
        super::columns::Order::Usual => "",
        super::columns::Order::Reversed => ", reversed",
    };
    let flow = match view.flow {
        Flow::Live => format!("every {} s", view.pause.as_secs()),
        Flow::Paused => "PAUSED".to_owned(),
    };
    let clock = clock(view.usage.time);
    let mut parts = vec![flow, count, clock, format!("by {}{order}", view.sort.column.key)];
    let room = usize::from(canvas.area.width.saturating_sub(used + 2));
    while width(&parts.join("  ")) > room && parts.pop().is_some() {}
    let line = parts.join("  ");
    let at = canvas.area.width.saturating_sub(columns(&line));
    canvas.put(at, 0, &line, columns(&line), canvas.style(Tone::Plain));
}

/// The last line: what is wrong, what is typed, or what keys do.
fn foot(view: &View, canvas: &mut Canvas<'_>, y: u16, now: Instant) {
    let all = canvas.area.width;
    if view.page == Page::Typing {
        let typed = canvas.glyphs.show(view.words.typed());
        // The end of what is typed is what is looked at while it is typed.
        let room = usize::from(all.saturating_sub(2));
        let mut from = 0;
        while width(typed.get(from..).unwrap_or_default()) > room {
            from += typed.get(from..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
        }
        let typed = typed.get(from..).unwrap_or_default();
        let mut x = canvas.put(0, y, "/", all, canvas.style(Tone::Strong));
        x += canvas.put(x, y, typed, all.saturating_sub(x), canvas.style(Tone::Plain));
        x += canvas.put(x, y, " ", 1, Style::new().add_modifier(Modifier::REVERSED));
        let hint = view.words.slip().map_or("  Enter keeps it, Esc drops it".to_owned(), |slip| {
            format!("  {}", canvas.glyphs.show(slip))
        });
        let tone = if view.words.slip().is_some() { Tone::Busy } else { Tone::Faint };
        canvas.put(x, y, &hint, all.saturating_sub(x), canvas.style(tone));
        return;
    }
    if let Some(trouble) = &view.trouble {
        let age = now.saturating_duration_since(view.read_at).as_secs();
        let age = output::duration(i64::try_from(age).unwrap_or(i64::MAX));
        let first = canvas.glyphs.show(trouble.lines().next().unwrap_or_default());
        canvas.put(0, y, &format!("figures of {age} ago: {first}"), all, canvas.style(Tone::Full));
        return;
    }
    if let Some(missing) = view.missing.first().filter(|_| view.page == Page::List) {
        let first = canvas.glyphs.show(missing.lines().next().unwrap_or_default());
        let more = match view.missing.len() {
            1 => String::new(),
            all => format!(" ({all} members do not answer)"),
        };
        canvas.put(0, y, &format!("{first}{more}"), all, canvas.style(Tone::Busy));
        return;
    }
    let keys: &[&str] = match view.page {
        Page::Instance => &["q back", "< > others", "p pause", "? help"],
        Page::Help => &["q back"],
        _ => &["q quit", "/ filter", "Enter look", "s sort", "r reverse", "p pause", "? help"],
    };
    let mut x = 0;
    if !view.words.is_empty() && view.page == Page::List {
        let words = format!("/{}  Esc drops it  ", canvas.glyphs.show(view.words.typed()));
        x = canvas.put(0, y, &words, all, canvas.style(Tone::Strong));
    }
    for words in keys {
        if x + columns(words) > all {
            break;
        }
        x += canvas.put(x, y, words, all - x, canvas.style(Tone::Faint)) + 2;
    }
}

/// The hour of a moment, in UTC: the terminal's own zone is not the server's.
fn clock(time: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "seconds since the epoch fit")]
    let moment = time::OffsetDateTime::from_unix_timestamp(time as i64);
    moment.map_or_else(
        |_| String::new(),
        |moment| format!("{:02}:{:02}:{:02} UTC", moment.hour(), moment.minute(), moment.second()),
    )
}

/// How many columns a short text of ours takes.
fn columns(text: &str) -> u16 {
    u16::try_from(width(text)).unwrap_or(u16::MAX)
}

impl Canvas<'_> {
    /// Writes a text, cut where there is no room; how many columns it took.
    fn put(&mut self, x: u16, y: u16, text: &str, room: u16, style: Style) -> u16 {
        let room = room.min(self.area.width.saturating_sub(x));
        if room == 0 || y >= self.area.height {
            return 0;
        }
        let text = fit(text, room.into(), self.glyphs.cut());
        let (end, _) = self.buffer.set_stringn(self.area.x + x, self.area.y + y, &text, room.into(), style);
        end.saturating_sub(self.area.x + x)
    }

    /// Writes a text that ends where the room does.
    fn put_right(&mut self, x: u16, y: u16, text: &str, room: u16, style: Style) {
        let indent = room.saturating_sub(columns(text));
        self.put(x + indent, y, text, room - indent, style);
    }

    /// How something that matters so much looks. Without colours, what is bold or faint still is.
    fn style(&self, tone: Tone) -> Style {
        let style = Style::new();
        let colour = |colour| if self.colours == Colours::On { style.fg(colour) } else { style };
        match tone {
            Tone::Plain => style,
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Calm => colour(Color::Green),
            Tone::Busy => colour(Color::Yellow),
            Tone::Full => colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

#[cfg(test)]
mod tests;
