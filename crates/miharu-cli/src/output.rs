//! How lists are printed: the formats of the Incus and LXD clients.

use std::io::Write;

use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::error::Failure;
pub(crate) use crate::format::{Form, Format};
pub(crate) use crate::text::printable;

/// The lines of a table as the clients that users know draw them, in comfy-table's order of components.
const LINES: &str = "||--+-++|-+++++++++";

/// Rows of text under their headers.
pub(crate) struct Rows {
    /// One word or two for each column, in capitals.
    pub(crate) headers: Vec<&'static str>,
    /// As many cells a row as there are headers.
    pub(crate) rows: Vec<Vec<String>>,
}

/// Writes a list: `rows` for people, `full` (what the server said) for programs.
pub(crate) fn write_list<T: Serialize>(
    out: &mut dyn Write,
    format: Format,
    rows: &Rows,
    full: &[T],
) -> Result<(), Failure> {
    let headers = format.has_headers().then_some(rows.headers.as_slice());
    match format.form {
        Form::Table => write_table(out, &table(headers, rows, LINES)),
        Form::Markdown => write_table(out, &table(headers, rows, ASCII_MARKDOWN)),
        Form::Compact => write_compact(out, table(headers, rows, NOTHING)),
        Form::Csv => write_csv(out, headers, rows),
        Form::Json => {
            let text = serde_json::to_string(full).map_err(unprintable)?;
            Ok(writeln!(out, "{text}")?)
        }
        Form::Yaml => write_yaml(out, full),
    }
}

/// Writes a value as a YAML document.
pub(crate) fn write_yaml<T: Serialize + ?Sized>(out: &mut dyn Write, value: &T) -> Result<(), Failure> {
    let text = serde_norway::to_string(value).map_err(unprintable)?;
    Ok(out.write_all(text.as_bytes())?)
}

/// How long, in the two largest units: `1d 2h`, `5m 3s`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (hours / 24, hours % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// A size as the clients of Incus and LXD print it: `1.50KiB`.
pub(crate) fn bytes(size: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size}B");
    }
    // Two decimals: what a conversion of integers this large to a double loses cannot be seen.
    #[expect(clippy::cast_precision_loss)]
    let mut value = size as f64 / 1024.0;
    let [mut unit, larger @ ..] = UNITS;
    for larger in larger {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.2}{unit}")
}

/// A share as the clients of Incus and LXD print it: `12.3%`; nothing of nothing is nothing.
pub(crate) fn percent(part: i64, whole: i64) -> String {
    // One decimal: what a conversion of integers this large to a double loses cannot be seen.
    #[expect(clippy::cast_precision_loss)]
    let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{:.1}%", share * 100.0)
}

fn unprintable(error: impl std::fmt::Display) -> Failure {
    Failure::request(format!("the server's answer cannot be printed: {error}"))
}

fn cells(rows: &Rows) -> impl Iterator<Item = Vec<String>> + '_ {
    rows.rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect())
}

fn write_table(out: &mut dyn Write, table: &Table) -> Result<(), Failure> {
    Ok(writeln!(out, "{table}")?)
}

fn write_compact(out: &mut dyn Write, mut table: Table) -> Result<(), Failure> {
    for column in table.column_iter_mut() {
        column.set_padding((2, 0)).set_cell_alignment(CellAlignment::Left);
    }
    Ok(writeln!(out, "{}", table.trim_fmt())?)
}

/// Wide characters, as in Japanese names, take two columns of a terminal: comfy-table counts them so.
fn table(headers: Option<&[&'static str]>, rows: &Rows, preset: &str) -> Table {
    let mut table = Table::new();
    // Never wrapped to the terminal's width: a line a row can be searched and copied.
    table.load_preset(preset).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(headers) = headers {
        table.set_header(headers.iter().map(|header| Cell::new(header).set_alignment(CellAlignment::Center)));
    }
    table.add_rows(cells(rows));
    table
}

fn write_csv(out: &mut dyn Write, headers: Option<&[&'static str]>, rows: &Rows) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(out);
    if let Some(headers) = headers {
        writer.write_record(headers).map_err(csv_failure)?;
    }
    for row in cells(rows) {
        writer.write_record(&row).map_err(csv_failure)?;
    }
    Ok(writer.flush()?)
}

fn csv_failure(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::Output(error),
        other => Failure::request(format!("cannot write CSV: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn written(format: &str) -> String {
        let format = format.parse().unwrap();
        let rows = Rows {
            headers: vec!["NAME", "STATE"],
            rows: vec![
                vec!["c1".to_owned(), "RUNNING".to_owned()],
                vec!["a,\"b\"\u{1b}[2J".to_owned(), String::new()],
                vec!["監視".to_owned(), "RUNNING".to_owned()],
            ],
        };
        let mut out = Vec::new();
        write_list(&mut out, format, &rows, &["one", "two"]).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn check(format: &str, expected: &Expect) {
        expected.assert_eq(&written(format));
    }

    #[test]
    fn sizes_read_as_in_the_clients() {
        let read = [-1, 0, 1023, 1024, 1536, 1024 * 1024 - 1, 1_887_436, 10 << 30, i64::MAX].map(bytes);
        expect!["-1B 0B 1023B 1.00KiB 1.50KiB 1024.00KiB 1.80MiB 10.00GiB 8.00EiB"]
            .assert_eq(&read.join(" "));
    }

    #[test]
    fn table() {
        check(
            "table",
            &expect![[r#"
                +-----------+---------+
                |    NAME   |  STATE  |
                +-----------+---------+
                | c1        | RUNNING |
                +-----------+---------+
                | a,"b"�[2J |         |
                +-----------+---------+
                | 監視      | RUNNING |
                +-----------+---------+
            "#]],
        );
    }

    #[test]
    fn compact() {
        // Not expect!, which would take the blanks that the lines begin with for its own indentation.
        let lines = ["     NAME     STATE", "  c1         RUNNING", "  a,\"b\"�[2J", "  監視       RUNNING"];
        assert_eq!(written("compact").lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn csv() {
        check(
            "csv",
            &expect![[r#"
                c1,RUNNING
                "a,""b""�[2J",
                監視,RUNNING
            "#]],
        );
    }

    #[test]
    fn json() {
        check(
            "json",
            &expect![[r#"
            ["one","two"]
        "#]],
        );
    }

    #[test]
    fn yaml() {
        check(
            "yaml",
            &expect![[r#"
            - one
            - two
        "#]],
        );
    }

    #[test]
    fn markdown() {
        check(
            "markdown",
            &expect![[r#"
                |    NAME   |  STATE  |
                |-----------|---------|
                | c1        | RUNNING |
                | a,"b"�[2J |         |
                | 監視      | RUNNING |
            "#]],
        );
    }

    #[test]
    fn headers_come_and_go_as_asked() {
        assert!(written("csv,header").starts_with("NAME,STATE\nc1,RUNNING\n"));
        assert!(!written("csv,noheader").contains("NAME"));
        let compact = written("compact,noheader");
        assert!(compact.trim_start().starts_with("c1"), "{compact}");
        assert!(!written("table,noheader").contains("NAME"));
        assert_eq!(written("json,header"), written("json"));
    }
}
