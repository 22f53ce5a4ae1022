//! `make bench`: what a scrape costs, measured on real containers: miharud, the floor below which nobody gets, and what people use
//! instead. It prints every figure as it comes, keeps all samples in `bench.json`, and writes the table of `docs/explanation/performance.md`.
//!
//! CPU time is that of the processes, to the nanosecond; so what else the machine does hardly shows. Subjects take turns.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]
// The ban on subprocesses is for the daemon and its libraries; a benchmark starts those that it measures.
#![allow(clippy::disallowed_methods)]

mod book;
mod exporter;
mod flame;
mod floor;
mod miharud;
mod netdata;
mod page;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use miharu_e2e::fleet::Fleet;
use miharu_e2e::lxd::Kind;
use miharu_e2e::{Need, interrupt, scratch, shell};

use crate::book::Book;
use crate::floor::Way;

#[derive(Debug, Parser)]
#[command(about = "What a scrape costs, measured on real containers")]
struct Args {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// Measure only these
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Subject>,
    /// How many LXC containers, in rising order
    #[arg(long, value_delimiter = ',', default_value = "10,50,100,500")]
    containers: Vec<u32>,
    /// How many containers LXD and Incus start
    #[arg(long, default_value_t = 100)]
    peers: u32,
    /// How many samples of each figure
    #[arg(long, default_value_t = 7)]
    samples: u32,
    /// Write bench.json into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the tables into this page, between its marks
    #[arg(long)]
    page: Option<PathBuf>,
    /// Measure nothing: take the figures of an earlier bench.json
    #[arg(long)]
    from: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// miharud and the floor
    Miharud,
    /// Netdata, on the most containers
    Netdata,
    /// A flame graph of the fresh scrape, where --out says where to
    Flame,
    /// cgroups-exporter from PyPI, on the most containers
    Exporter,
    /// LXD, and miharud on its containers
    Lxd,
    /// Incus, and miharud on its containers
    Incus,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// The floor's own process
    #[command(hide = true)]
    Floor { way: Way },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Some(Hidden::Floor { way }) => floor::work(way),
        None => bench(&args),
    };
    if let Err(error) = done {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn bench(args: &Args) -> Result<()> {
    let book = if let Some(from) = &args.from {
        Book::load(from)?
    } else {
        interrupt::listen()?;
        if let Some(reason) = Need::Lxc.lacking().or_else(|| Need::Tls.lacking()) {
            bail!("{reason}");
        }
        let measured = measure(args);
        scratch::finish();
        measured?
    };
    if let Some(out) = &args.out {
        book.save(&out.join("bench.json"))?;
    }
    if let Some(page) = &args.page {
        page::write(page, &book)?;
    }
    Ok(())
}

fn measure(args: &Args) -> Result<Book> {
    let mut book = Book::new()?;
    book.date = shell::run("date", ["-u", "+%Y-%m-%d %H:%M UTC"])?.trim().to_owned();
    book.commit = commit();
    let wanted = |subject| args.only.is_empty() || args.only.contains(&subject);
    let mut fleet = Fleet::on_usual_path()?;
    for containers in &args.containers {
        if wanted(Subject::Miharud) {
            println!("{containers} containers");
            fleet.grow(*containers)?;
            miharud::run(&mut book, *containers, args.samples)?;
        }
    }
    let most = args.containers.iter().copied().max().unwrap_or(0);
    if let Some(out) = args.out.as_ref().filter(|_| wanted(Subject::Flame)) {
        println!("A flame graph with {most} containers");
        fleet.grow(most)?;
        flame::run(&mut book, most, out)?;
    }
    if wanted(Subject::Netdata) {
        println!("Netdata on the same {most} containers");
        fleet.grow(most)?;
        netdata::run(&mut book, most, args.samples)?;
    }
    if wanted(Subject::Exporter) {
        println!("cgroups-exporter on the same {most} containers");
        fleet.grow(most)?;
        exporter::run(&mut book, most, args.samples)?;
    }
    drop(fleet);
    for (subject, kind) in [(Subject::Lxd, Kind::Lxd), (Subject::Incus, Kind::Incus)] {
        if wanted(subject) {
            println!("{kind:?}, {} containers of its own", args.peers);
            peers::run(&mut book, kind, args.peers, args.samples)?;
        }
    }
    Ok(book)
}

/// The commit that is checked out, with a `+` where files differ from it; unknown outside of a checkout.
fn commit() -> String {
    let git = |args: &[&str]| {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        shell::run("git", ["-c", "safe.directory=*", "-C", dir].iter().chain(args))
    };
    let Ok(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let differs =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|files| !files.is_empty());
    format!("{}{}", commit.trim(), if differs { "+" } else { "" })
}
