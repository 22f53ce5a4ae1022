//! Text from elsewhere, made fit for a terminal.
//!
//! Names of instances, projects and certificates, and messages of runtimes, are whatever somebody chose. A terminal obeys
//! control characters, turns the rest of a line around for some characters, and shows nothing at all for others.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

/// How many marks (accents and the like) one character may carry: more than any language asks for, and few enough that no
/// name grows over its neighbours.
const MAX_MARKS: usize = 2;

/// The text with what a terminal would obey, turn around or hide replaced, so that two names that differ look different.
pub(crate) fn printable(text: &str) -> String {
    let mut marks = 0;
    text.chars()
        .map(|c| {
            let width = c.width().unwrap_or(0);
            marks = if width == 0 { marks + 1 } else { 0 };
            if c.is_control() || is_invisible(c) || marks > MAX_MARKS {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// How many columns of a terminal the text takes, if it is [`printable`].
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text within so many columns: its end gives way to `end` (`…`) where it is longer.
pub(crate) fn fit<'a>(text: &'a str, columns: usize, end: &str) -> Cow<'a, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let room = columns.saturating_sub(width(end));
    let mut used = 0;
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= room
        })
        .collect();
    if columns >= width(end) {
        kept.push_str(end);
    }
    Cow::Owned(kept)
}

/// The text in ASCII alone, for terminals that show nothing else.
pub(crate) fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

/// Characters that show nothing themselves, and change how others are shown: formats (Cf) of Unicode, among them those
/// that turn text around, the separators of lines, selectors of variants, tags, and fillers.
/// <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\n\u{9b}c\u{7f}"), "a�[2Jb���c�");
        assert_eq!(printable("web\u{202e}gpj"), "web�gpj");
        assert_eq!(printable("a\u{200b}\u{feff}\u{e0041}b"), "a���b");
        assert_eq!(printable("監視 café é שלום"), "監視 café é שלום");
    }

    #[test]
    fn marks_do_not_pile_up() {
        assert_eq!(printable(&format!("e{}x", "\u{301}".repeat(5))), "e\u{301}\u{301}���x");
    }

    #[test]
    fn what_is_too_long_is_cut_by_columns() {
        assert_eq!(fit("web", 3, "…"), "web");
        assert_eq!(fit("web-1", 4, "…"), "web…");
        assert_eq!(fit("監視監視", 6, "…"), "監視…");
        assert_eq!(fit("監視監視", 5, "~"), "監視~");
        assert_eq!((fit("監", 1, "…"), fit("監", 0, "…")), ("…".into(), "".into()));
        assert_eq!(ascii("監\u{1b}a"), "??a");
    }

    proptest! {
        #[test]
        fn nothing_printable_is_obeyed_or_too_wide(text in any::<String>(), columns in 0_usize..40) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert_eq!(shown.chars().count(), text.chars().count());
            prop_assert_eq!(printable(&shown), shown.clone());
            prop_assert!(width(&fit(&shown, columns, "…")) <= columns);
        }
    }
}
