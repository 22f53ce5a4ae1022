//! `miharu top`: what each instance uses now.

mod columns;
mod draw;
mod figure;
mod graph;
mod live;
mod screen;
mod table;
mod view;
mod words;

use std::io::Write;
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use miharu_api::{History, Usage};

use self::columns::Sort;
use self::graph::Glyphs;
use self::live::Graphs;
use self::table::Table;
use self::view::{Key, View};
use super::Context;
use crate::client::{Ask, encoded};
use crate::colour::{Colours, Reader};
use crate::error::Failure;
use crate::filter::{Filter, filters_help};
use crate::output::{Form, Format};

/// The pause between two readings that nobody chose: as top of procps has it.
const PAUSE: Duration = Duration::from_secs(3);
/// How long an answer is awaited on the screen, on which keys are heard meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);

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
    /// Ask this member of the cluster
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
    let source = Source { context, project, target: args.target.as_deref() };
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

/// The server, and what of it is asked for.
struct Source<'a> {
    context: &'a Context<'a>,
    project: Option<&'a str>,
    target: Option<&'a str>,
}

impl Source<'_> {
    /// What all instances use now, by figures that are not much older than `pause`.
    async fn usage(&self, graphs: Graphs, pause: Duration) -> Result<Usage, Failure> {
        let mut path = format!("/1.0/usage?max_age={}", pause.as_secs().max(1));
        if graphs == Graphs::Wanted {
            path.push_str("&recent=true");
        }
        self.limit(&mut path);
        let reply = self.context.client.send_within(PATIENCE, Ask::new(Method::GET, &path)).await?;
        reply.metadata().map_err(|failure| match reply.status {
            StatusCode::NOT_FOUND if self.target.is_none() => Failure::request(format!(
                "{failure}\nThe server does not say what instances use: it is older than this miharu top, which needs one \
                 that does."
            )),
            _ => failure,
        })
    }

    /// The last hour of an instance.
    async fn history(&self, (project, name, kind): &Key) -> Result<History, Failure> {
        let mut path = format!(
            "/1.0/instances/{}/history?project={}&type={}",
            encoded(name),
            encoded(project),
            encoded(kind)
        );
        if let Some(target) = self.target {
            path.push_str(&format!("&target={}", encoded(target)));
        }
        self.context.client.send_within(PATIENCE, Ask::new(Method::GET, &path)).await?.metadata()
    }

    fn limit(&self, path: &mut String) {
        for (key, value) in [("project", self.project), ("target", self.target)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encoded(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
