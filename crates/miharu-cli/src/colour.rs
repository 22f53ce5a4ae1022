//! Whether there are colours: on terminals, unless the environment says otherwise.

use std::ffi::{OsStr, OsString};

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// There are.
    On,
    /// There are none.
    Off,
}

/// What a stream is written to by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A person at a terminal.
    Terminal,
    /// A file or another program.
    Other,
}

impl Reader {
    /// Who reads this stream.
    pub(crate) fn of(stream: &impl std::io::IsTerminal) -> Self {
        if stream.is_terminal() { Self::Terminal } else { Self::Other }
    }
}

impl Colours {
    /// What is right for such a reader.
    pub(crate) fn for_reader(reader: Reader) -> Self {
        Self::choose(reader, |name| std::env::var_os(name))
    }

    /// `NO_COLOR` with any value takes colours away (<https://no-color.org>); `CLICOLOR_FORCE` gives them to pipes too, and
    /// `CLICOLOR=0` takes them away (<https://bixense.com/clicolors/>); a dumb terminal has none.
    fn choose(reader: Reader, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_zero = |value: &OsString| value.as_os_str() == OsStr::new("0");
        if said("NO_COLOR").is_some() {
            return Self::Off;
        }
        if said("CLICOLOR_FORCE").is_some_and(|value| !is_zero(&value)) {
            return Self::On;
        }
        let is_dumb = said("TERM").is_some_and(|term| term.as_os_str() == OsStr::new("dumb"));
        if reader == Reader::Other || is_dumb || said("CLICOLOR").is_some_and(|value| is_zero(&value)) {
            return Self::Off;
        }
        Self::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(reader: Reader, environment: &[(&str, &str)]) -> Colours {
        Colours::choose(reader, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn colours_are_for_terminals_unless_the_environment_says_otherwise() {
        assert_eq!(choose(Reader::Terminal, &[]), Colours::On);
        assert_eq!(choose(Reader::Other, &[]), Colours::Off);
        assert_eq!(choose(Reader::Terminal, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), Colours::Off);
        assert_eq!(choose(Reader::Terminal, &[("NO_COLOR", "")]), Colours::On);
        assert_eq!(choose(Reader::Other, &[("CLICOLOR_FORCE", "1")]), Colours::On);
        assert_eq!(choose(Reader::Other, &[("CLICOLOR_FORCE", "0")]), Colours::Off);
        assert_eq!(choose(Reader::Terminal, &[("CLICOLOR", "0")]), Colours::Off);
        assert_eq!(choose(Reader::Terminal, &[("TERM", "dumb")]), Colours::Off);
    }
}
