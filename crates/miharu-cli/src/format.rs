//! `--format`: a word for the form of a list, and whether it has a line of headers.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::builder::{PossibleValue, TypedValueParser, ValueParserFactory};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, ValueEnum};

/// How a list is written: `table`, `csv,header`, as the clients of Incus take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Format {
    /// The form.
    pub(crate) form: Form,
    /// What was asked for beside it.
    headers: Headers,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// A table with lines, for reading
    #[default]
    Table,
    /// Columns without lines
    Compact,
    /// A line an entry, with commas; without headers unless it is csv,header
    Csv,
    /// Everything the server said, as JSON
    Json,
    /// Everything the server said, as YAML
    Yaml,
    /// A table for a text in Markdown
    Markdown,
}

/// Whether there is a line of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Headers {
    /// Where people read it.
    #[default]
    Usual,
    /// `,header`.
    Shown,
    /// `,noheader`.
    Hidden,
}

impl Format {
    /// Whether a line of headers is written.
    pub(crate) fn has_headers(self) -> bool {
        match self.headers {
            Headers::Usual => self.form != Form::Csv,
            Headers::Shown => true,
            Headers::Hidden => false,
        }
    }
}

impl From<Form> for Format {
    fn from(form: Form) -> Self {
        Self { form, headers: Headers::Usual }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (form, headers) = match text.split_once(',') {
            None => (text, Headers::Usual),
            Some((form, "header")) => (form, Headers::Shown),
            Some((form, "noheader")) => (form, Headers::Hidden),
            Some((_, other)) => {
                return Err(format!("'{other}' is not known after the comma: use header or noheader"));
            }
        };
        Ok(Self { form: Form::from_str(form, false)?, headers })
    }
}

impl ValueParserFactory for Format {
    type Parser = Parser;

    fn value_parser() -> Parser {
        Parser
    }
}

/// Reads [`Format`] on the command line; its words are told to help texts and shells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parser;

impl TypedValueParser for Parser {
    type Value = Format;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Format, clap::Error> {
        let text = value.to_string_lossy();
        text.parse().map_err(|reason: String| {
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            let name = arg.map(ToString::to_string).unwrap_or_default();
            error.insert(ContextKind::InvalidArg, ContextValue::String(name));
            error.insert(ContextKind::InvalidValue, ContextValue::String(text.clone().into_owned()));
            if text.contains(',') {
                let said = ContextValue::StyledStrs(vec![reason.into()]);
                error.insert(ContextKind::Suggested, said);
            }
            let known = forms().map(|form| form.get_name().to_owned()).collect();
            error.insert(ContextKind::ValidValue, ContextValue::Strings(known));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(forms()))
    }
}

fn forms() -> impl Iterator<Item = PossibleValue> {
    Form::value_variants().iter().filter_map(ValueEnum::to_possible_value)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn forms_and_headers_are_told_apart() {
        let read = |text: &str| text.parse::<Format>();
        assert!(!read("csv").unwrap().has_headers());
        assert!(read("csv,header").unwrap().has_headers());
        assert!(!read("table,noheader").unwrap().has_headers());
        assert_eq!(read("compact").unwrap(), Format::from(Form::Compact));
        assert!(read("csv,head").unwrap_err().contains("header or noheader"));
        assert!(read("").is_err() && read("Csv").is_err() && read(",header").is_err());
    }

    #[test]
    fn a_slip_is_told_with_the_words_there_are() {
        let told =
            |format: &str| Cli::try_parse_from(["miharu", "list", "-f", format]).unwrap_err().to_string();
        assert!(told("cvs").contains("table, compact, csv, json, yaml, markdown"), "{}", told("cvs"));
        assert!(told("csv,head").contains("use header or noheader"), "{}", told("csv,head"));
    }
}
