//! `miharu top` where nobody looks: a table, once or again and again.

use std::io::Write;
use std::time::Duration;

use miharu_api::{InstanceUsage, Usage};

use super::columns::{Column, Content, Sort};
use super::figure::{long, raw};
use super::graph::{self, Glyphs};
use super::source::{Graphs, Source};
use crate::error::Failure;
use crate::filter::Filter;
use crate::output::{self, Form, Format, Rows, printable};

/// How wide a graph is in a table.
const GRAPH: usize = 20;

/// What is written.
pub(super) struct Table<'a> {
    /// The form.
    pub(super) format: Format,
    /// The columns.
    pub(super) columns: Vec<&'static Column>,
    /// The order of the rows.
    pub(super) sort: Sort,
    /// Instances that are meant.
    pub(super) filters: &'a [Filter],
    /// What can be shown.
    pub(super) glyphs: Glyphs,
}

/// Writes a table, and the next after each `refresh`, `count` in all; for ever where that is not said.
pub(super) async fn run(
    source: &Source<'_>,
    table: &Table<'_>,
    refresh: Option<Duration>,
    count: Option<u32>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let graphs =
        if table.columns.iter().any(|column| !column.is_sortable()) { Graphs::Wanted } else { Graphs::Left };
    let pause = refresh.unwrap_or(super::PAUSE);
    let mut left = count.or(if refresh.is_none() { Some(1) } else { None });
    loop {
        let reading = source.usage(graphs, pause).await?;
        table.write(reading.usage, out)?;
        out.flush()?;
        for words in reading.missing {
            // What cannot be written to the standard error cannot be complained about either.
            let _ = writeln!(std::io::stderr(), "Warning: {}", printable(&words));
        }
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
}

impl Table<'_> {
    fn write(&self, usage: Usage, out: &mut dyn Write) -> Result<(), Failure> {
        let time = usage.time;
        let mut instances = usage.instances;
        instances.retain(|instance| self.filters.iter().all(|filter| filter.passes(instance)));
        let mut sorted: Vec<_> = instances.iter().collect();
        self.sort.apply(&mut sorted, time);
        let rows = Rows {
            headers: self.columns.iter().map(|column| column.header).collect(),
            rows: sorted
                .iter()
                .map(|instance| self.columns.iter().map(|column| self.cell(column, instance, time)).collect())
                .collect(),
        };
        output::write_list(out, self.format, &rows, &sorted)
    }

    fn cell(&self, column: &Column, instance: &InstanceUsage, time: f64) -> String {
        let is_csv = self.format.form == Form::Csv;
        match column.content {
            Content::Text(text) if column.key == "type" => text(instance).to_uppercase(),
            Content::Text(text) => text(instance).to_owned(),
            Content::Figure(figure, measure) => figure(instance, time)
                .map(|value| if is_csv { raw(value) } else { long(value, measure) })
                .unwrap_or_default(),
            Content::Graph(figure) => {
                let values = instance.recent.get(figure).map_or(&[][..], Vec::as_slice);
                if is_csv {
                    let each = values.iter().map(|value| value.map(|v| v.to_string()).unwrap_or_default());
                    return each.collect::<Vec<_>>().join(" ");
                }
                graph::line(values, GRAPH, 0.0, self.glyphs)
            }
        }
    }
}
