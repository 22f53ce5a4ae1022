//! The page that says what keys do.

use ratatui::layout::Rect;

use super::super::view::View;
use super::{Canvas, Tone};

/// A key or two, and what they do; a line without a key is a heading.
const LINES: &[(&str, &str)] = &[
    ("", "Keys"),
    ("up down, j k", "move the mark; Page Up, Page Down, Home and End too"),
    ("Enter", "look at the marked instance: all figures, and their last hour"),
    ("/", "filter by a part of a name, project or runtime, or by KEY=VALUE"),
    ("s, < >", "sort by the next column, by the one on the left or right"),
    ("c m d w t n", "sort by CPU, memory, disk, written bytes, CPU time, name"),
    ("r", "sort the other way around; so does the same letter again"),
    ("p, Space", "pause, and go on"),
    ("R, F5", "read anew at once"),
    ("+ -", "read less often, more often"),
    ("Ctrl-L", "draw all of it anew"),
    ("?, h, F1", "this page"),
    ("q, Esc", "back, and from the list: end; Ctrl-C ends everywhere"),
    ("", ""),
    ("", "Figures"),
    ("CPU%", "percent of one CPU, without idle, iowait and steal"),
    ("MEM", "without what can be dropped at once; MEM% of what it may use"),
    ("yellow, red", "much, too much of what it may use"),
    ("! NAME", "its figures cannot be read: `miharu info NAME` says why"),
    ("blank", "not known; a reading alone makes no rate"),
];

const KEYS: u16 = 14;

pub(super) fn draw(view: &mut View, canvas: &mut Canvas<'_>, area: Rect) {
    let room = usize::from(area.height);
    let top = view.inner_top.min(LINES.len().saturating_sub(room));
    for (y, (key, words)) in (area.y..).zip(LINES.iter().skip(top).take(room)) {
        if key.is_empty() {
            canvas.put(0, y, words, area.width, canvas.style(Tone::Strong));
        } else {
            canvas.put(2, y, key, KEYS, canvas.style(Tone::Strong));
            canvas.put(2 + KEYS, y, words, area.width.saturating_sub(2 + KEYS), canvas.style(Tone::Plain));
        }
    }
    (view.inner_top, view.room) = (top, room);
}
