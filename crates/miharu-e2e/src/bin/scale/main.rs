//! `make scale`: hundreds of members on one machine, each a `miharud` with made-up containers, on one real etcd and scraped by one
//! real Prometheus; what they cost and how long changes take. usage: `scale [--members N] [--instances N] [--quick]`.
//!
//! The tables of `docs/explanation/scale.md` are written from what it sees; with `--quick`, which tries the program itself, or another size than
//! usual, they are only printed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]
#![allow(clippy::disallowed_methods, reason = "it starts daemons from outside")]

mod changes;
mod costs;
mod hall;
mod page;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use miharu_e2e::{Need, interrupt, measure, scratch};

use crate::hall::Hall;
use crate::page::Page;

/// How large it is.
#[derive(Clone, Copy, Debug, Parser)]
pub(crate) struct Plan {
    /// Members of the cluster, 250 at most
    #[arg(long, default_value_t = 200)]
    members: usize,
    /// Containers on each
    #[arg(long, default_value_t = 30)]
    instances: usize,
    /// Seconds between two scrapes
    #[arg(long, default_value_t = 15)]
    interval: u64,
    /// Twenty members with ten containers each, observed for a shorter time; nothing is written to the page
    #[arg(long)]
    quick: bool,
}

impl Plan {
    /// For how long costs are observed.
    fn span(self) -> Duration {
        Duration::from_secs(if self.quick { 20 } else { 60 })
    }
}

/// The memory that a member, and a series in Prometheus, may take at most before this is refused: more than what was
/// seen, and twice of it.
const MEMBER_BYTES: u64 = 20 << 20;
const SERIES_BYTES: u64 = 6_000;
const SERIES_OF_AN_INSTANCE: u64 = 70;

fn main() -> ExitCode {
    let mut plan = Plan::parse();
    if plan.quick {
        plan = Plan { members: 20, instances: 10, interval: 5, ..plan };
    }
    let done = interrupt::listen().and_then(|()| run(plan));
    scratch::finish();
    if let Err(error) = done {
        eprintln!("scale: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(plan: Plan) -> Result<()> {
    let needs = [Need::Containers, Need::Etcd, Need::Tls, Need::Prometheus];
    if let Some(reason) = needs.iter().find_map(|need| need.lacking()) {
        bail!("{reason}");
    }
    ensure!((3..=250).contains(&plan.members), "3 to 250 members");
    let (members, instances) = (u64::try_from(plan.members)?, u64::try_from(plan.instances)?);
    let wanted = members * (MEMBER_BYTES + instances * SERIES_OF_AN_INSTANCE * SERIES_BYTES);
    let there = measure::host_memory("MemAvailable")?;
    ensure!(
        wanted < there,
        "this may take {} MiB, and {} are there: fewer --members or --instances",
        wanted >> 20,
        there >> 20
    );

    let mut page = Page::new(plan)?;
    let mut hall = Hall::open(plan)?;
    page.joining(&hall.grow()?)?;
    page.say("nobody scrapes");
    let idle = costs::observe(&hall, plan.span())?;
    page.keys(&hall)?;
    page.say("changes");
    page.changes(&changes::measure(&hall)?);
    page.say("Prometheus scrapes");
    hall.start_prometheus()?;
    let scraped = costs::observe(&hall, plan.span())?;
    page.costs(&idle, &scraped)?;
    page.prometheus(&hall)?;
    page.say("etcd is killed, and comes back after half a minute");
    page.outage(&changes::outage(&mut hall)?);
    page.finish()
}
