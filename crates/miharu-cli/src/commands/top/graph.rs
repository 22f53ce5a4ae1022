//! Lines of small bars: how a figure went.

use crate::text;

/// Bars from nothing to full.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same where a terminal shows ASCII alone.
const PLAIN: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glyphs {
    /// All of Unicode.
    Unicode,
    /// ASCII alone.
    Ascii,
}

impl Glyphs {
    /// What the locale of the environment promises: the first of these variables that says something counts.
    /// <https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html#tag_08_02>
    pub(super) fn of_environment() -> Self {
        let said = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .filter_map(std::env::var_os)
            .find(|value| !value.is_empty());
        Self::of_locale(said.as_deref().and_then(std::ffi::OsStr::to_str))
    }

    /// Without any word of a locale (as a service or `docker exec` starts a shell) terminals of today speak UTF-8.
    fn of_locale(locale: Option<&str>) -> Self {
        let Some(locale) = locale else { return Self::Unicode };
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::Unicode } else { Self::Ascii }
    }

    /// What stands for the end of a text that was cut.
    pub(super) fn cut(self) -> &'static str {
        match self {
            Self::Unicode => "…",
            Self::Ascii => "~",
        }
    }

    /// Text from elsewhere, as it can be shown.
    pub(super) fn show(self, text: &str) -> String {
        match self {
            Self::Unicode => text::printable(text),
            Self::Ascii => text::ascii(text),
        }
    }

    fn bars(self) -> [char; 8] {
        match self {
            Self::Unicode => BARS,
            Self::Ascii => PLAIN,
        }
    }
}

/// The last `columns` values as bars between 0 and the largest of them, or `least` if that is more: what is next to nothing
/// stays low. A gap is blank.
pub(super) fn line(values: &[Option<f32>], columns: usize, least: f32, glyphs: Glyphs) -> String {
    let bars = glyphs.bars();
    let from = values.len().saturating_sub(columns);
    let shown = values.get(from..).unwrap_or_default();
    let top = shown.iter().flatten().copied().filter(|value| value.is_finite()).fold(least, f32::max);
    let bar = |value: f32| {
        let share = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let step = (share * 7.0).ceil() as usize;
        bars.get(step).copied().unwrap_or(' ')
    };
    let blank = std::iter::repeat_n(' ', columns - shown.len());
    blank.chain(shown.iter().map(|value| value.filter(|v| v.is_finite()).map_or(' ', bar))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_figure() {
        let values = [Some(0.0), None, Some(0.5), Some(1.0), Some(2.0)];
        assert_eq!(line(&values, 7, 0.0, Glyphs::Unicode), "  ▁ ▃▅█");
        assert_eq!(line(&values, 3, 0.0, Glyphs::Ascii), ":=#");
        assert_eq!(line(&values, 5, 20.0, Glyphs::Unicode), "▁ ▂▂▂");
        assert_eq!(line(&[], 2, 0.0, Glyphs::Unicode), "  ");
        assert_eq!(line(&[Some(f32::NAN), Some(f32::INFINITY), Some(-1.0)], 3, 1.0, Glyphs::Unicode), "  ▁");
        assert_eq!(line(&[Some(0.0)], 1, 0.0, Glyphs::Unicode), "▁");
    }

    #[test]
    fn the_locale_says_what_can_be_shown() {
        assert_eq!(Glyphs::of_locale(None), Glyphs::Unicode);
        assert_eq!(Glyphs::of_locale(Some("ja_JP.UTF-8")), Glyphs::Unicode);
        assert_eq!(Glyphs::of_locale(Some("C.utf8")), Glyphs::Unicode);
        assert_eq!(Glyphs::of_locale(Some("C")), Glyphs::Ascii);
        assert_eq!(Glyphs::of_locale(Some("ja_JP.eucJP")), Glyphs::Ascii);
    }
}
