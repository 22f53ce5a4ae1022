//! docs/reference/metrics.md holds what the lists of families say: each family, with its type, labels, meaning and source.
//!
//! `make references` runs this with `UPDATE_EXPECT=1`, and then it writes the tables anew instead of comparing them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use miharu_metrics::reference::{Row, TABLES, Table, Text};
use miharu_metrics::{FAMILIES, Family};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/metrics.md");

#[test]
fn the_page_is_what_the_lists_say() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let made = TABLES.iter().fold(page.clone(), |page, table| put(&page, table));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return std::fs::write(PAGE, made).unwrap();
    }
    let differing = page.lines().zip(made.lines()).find(|(page, made)| page != made);
    assert!(
        page == made,
        "docs/reference/metrics.md is not what the lists of families say, `make references` writes it; first: {differing:?}"
    );
}

#[test]
fn each_family_is_in_one_table() {
    let rows: Vec<&str> = TABLES.iter().flat_map(|table| table.rows).map(|row| row.family).collect();
    let described: BTreeSet<&str> = rows.iter().copied().collect();
    assert_eq!(described.len(), rows.len(), "a family is described twice");
    let served: BTreeSet<&str> = FAMILIES.iter().map(Family::bare_name).collect();
    assert_eq!(described, served, "src/reference.rs on the left, the list of families on the right");
}

/// The families of virtual machines are written down by hand, by their first letters: each of them has to be one.
#[test]
fn the_table_of_virtual_machines_names_families() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, section) = page.split_once("\n## Virtual machines\n").unwrap();
    let rows: Vec<&str> = section.lines().take_while(|line| !line.starts_with("## ")).collect();
    let cells = rows.iter().filter(|row| row.starts_with("| `")).filter_map(|row| row.split('|').nth(1));
    let names: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let known = |family: &Family| {
            family.bare_name() == name || (name.ends_with('_') && family.bare_name().starts_with(name))
        };
        assert!(FAMILIES.iter().any(known), "{name}");
    }
}

/// The page with this table between its marks.
fn put(page: &str, table: &Table) -> String {
    let begin = format!("<!-- begin of what `make references` writes: {} -->\n", table.name);
    let end = "<!-- end of what `make references` writes -->\n";
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("the page has no {begin}"));
    let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("the page has no {end} after {begin}"));
    // Markdown sees a table only after an empty line.
    [before, &begin, "\n", &markdown(table), "\n", end, after].concat()
}

fn markdown(table: &Table) -> String {
    let of_files = table.rows.iter().any(|row| matches!(row.text, Text::Files { .. }));
    let mut text = if of_files {
        "| family | type | labels | meaning | cgroup v2 | cgroup v1 |\n|---|---|---|---|---|---|\n".to_owned()
    } else {
        "| family | type | labels | meaning |\n|---|---|---|---|\n".to_owned()
    };
    for row in table.rows {
        writeln!(text, "{}", line(row)).unwrap();
    }
    text
}

fn line(row: &Row) -> String {
    let family = FAMILIES.iter().find(|family| family.bare_name() == row.family);
    let family = family.unwrap_or_else(|| panic!("there is no family {}", row.family));
    let labels: Vec<String> = row.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{} ", labels.join(", ")) };
    let start = format!("| `{}` | {} | {labels}|", row.family, family.metric_type().as_str());
    match row.text {
        Text::Files { v2, v1 } => {
            format!("{start} {} | {v2} | {v1} |", family.help().trim_end_matches('.'))
        }
        Text::Meaning(meaning) => format!("{start} {meaning} |"),
    }
}
