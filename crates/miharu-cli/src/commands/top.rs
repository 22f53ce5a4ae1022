//! `miharu top`: what each instance uses now.

mod columns;
mod draw;
mod figure;
mod graph;
mod live;
mod screen;
mod source;
mod table;
mod view;
mod words;

use std::io::Write;
use std::time::Duration;

use clap::Args;

use self::columns::Sort;
use self::graph::Glyphs;
use self::source::Source;
use self::table::Table;
use self::view::View;
use super::Context;
use crate::colour::{Colours, Reader};
use crate::error::Failure;
use crate::filter::{Filter, filters_help};
use crate::output::{Form, Format};

/// The pause between two readings that nobody chose: as top of procps has it.
const PAUSE: Duration = Duration::from_secs(3);

/// What to show, and how.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "\
At a terminal it is a live view: ? shows its keys. With --format, or where the output is no terminal, it is a table: once, or
again every SECONDS with --refresh until it is interrupted (incus top goes on without being told to).

csv holds plain figures: CPUs, seconds, bytes, bytes a second, shares between 0 and 1. json and yaml hold all that the server said.

Columns:
  n name        c CPU now, % of one      a disk read a second      X CPU pressure
  e project     C CPU, last half hour    w disk written a second   Y memory pressure
  t type        u CPU time, seconds      R network received        Z I/O pressure
  r runtime     k CPU limit              T network sent            N processes
  L location    h throttled              D root file system used   U time since its start
  o source      m memory                 F of its size
  S swap        M of what it may use     G memory, last half hour

",
    filters_help!(),
    "
Colours: none with NO_COLOR; to pipes too with CLICOLOR_FORCE=1.

Examples:
  miharu top
  miharu top type=container 'project~=^docker/' --sort memory
  miharu top -f csv,header -c necm
  miharu top -f json --refresh 10 > usage.jsonl"
))]
pub(crate) struct TopArgs {
    /// Start of a name, KEY=VALUE, or KEY~=REGEX
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// A table in this form instead of the live view
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The columns, by their letters
    #[arg(short, long, value_name = "LETTERS")]
    columns: Option<String>,
    /// Seconds between two readings: 1 or more
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    refresh: Option<u32>,
    /// What the rows are sorted by, as cpu, memory or name; -memory is the other way around
    #[arg(short, long, value_name = "COLUMN", default_value = "cpu", allow_hyphen_values = true)]
    sort: String,
    /// How many tables are written
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Ask this member of the cluster alone, and not all of them
    #[arg(long, value_name = "MEMBER")]
    target: Option<String>,
    /// Instances of all projects, as without --project
    #[arg(long)]
    all_projects: bool,
}

/// Shows it.
pub(crate) async fn run(context: &Context<'_>, args: &TopArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let sort = Sort::parse(&args.sort)?;
    let filters = Filter::parse_all(&args.filters)?;
    let chosen = args.columns.as_deref().map(columns::parse).transpose()?;
    let refresh = args.refresh.map(|seconds| Duration::from_secs(seconds.into()));
    let project = context.project.filter(|_| !args.all_projects);
    let source = Source::find(context, project, args.target.as_deref()).await?;
    let people = (Reader::of(&std::io::stdin()), Reader::of(&std::io::stdout()));
    let is_seen = people == (Reader::Terminal, Reader::Terminal) && args.count.is_none();
    let glyphs = Glyphs::of_environment();
    if args.format.is_none() && is_seen {
        let columns = match chosen {
            Some(columns) => columns,
            None => columns::parse(columns::ON_SCREEN)?,
        };
        let mut view = View::new(columns, sort, refresh.unwrap_or(PAUSE), glyphs);
        view.filters = filters;
        context.client.progress().hush();
        return live::run(&source, &mut view, out, Colours::for_reader(people.1)).await;
    }
    let columns = match chosen {
        Some(columns) => columns,
        None => columns::parse(columns::IN_TABLES)?,
    };
    let format = args.format.unwrap_or(Format::from(Form::Table));
    let table = Table { format, columns, sort, filters: &filters, glyphs };
    table::run(&source, &table, refresh, args.count, out).await
}

#[cfg(test)]
mod tests;
