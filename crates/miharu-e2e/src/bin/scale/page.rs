//! What was seen: said to the person who waits, and written into `docs/explanation/scale.md` between its marks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use miharu_e2e::measure::{Machine, Samples};
use miharu_e2e::shell;

use crate::Plan;
use crate::changes::{Changes, Outage};
use crate::costs::{Costs, EtcdMetrics};
use crate::hall::{Hall, Joined};

const PAGE: &str = "docs/explanation/scale.md";
const BEGIN: &str = "<!-- simulation: begin -->";
const END: &str = "<!-- simulation: end -->";

/// A table that grows.
pub(crate) struct Page {
    plan: Plan,
    text: String,
}

impl Page {
    /// An empty one.
    ///
    /// # Errors
    /// When the machine cannot be told.
    pub(crate) fn new(plan: Plan) -> Result<Self> {
        let machine = Machine::this()?;
        let date = shell::run("date", ["-u", "+%F"])?;
        let commit = shell::run("git", ["rev-parse", "--short", "HEAD"]).unwrap_or_default();
        let Machine { cores, cpu, kernel, .. } = &machine;
        let text = format!(
            "{} members of {} containers, all on one machine with {cores} cores of {cpu} that others use too, Linux {kernel}, etcd and \
             Prometheus of Debian 12, commit {}, {}.\n\n| what | seen |\n|---|---:|\n",
            plan.members,
            plan.instances,
            commit.trim(),
            date.trim()
        );
        println!("{text}");
        Ok(Self { plan, text })
    }

    /// Says something that is no figure.
    #[allow(clippy::unused_self, reason = "it is the page that speaks")]
    pub(crate) fn say(&self, what: &str) {
        println!("{what}");
    }

    fn row(&mut self, what: &str, seen: &str) {
        println!("  {what}: {seen}");
        let _ = writeln!(self.text, "| {what} | {seen} |");
    }

    /// How long members take to start and to join.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn joining(&mut self, all: &[Joined]) -> Result<()> {
        let of =
            |figure: fn(&Joined) -> f64, some: &[Joined]| Samples(some.iter().map(figure).collect()).median();
        let ready = of(|joined| joined.ready.as_secs_f64(), all).context("nobody joined")?;
        self.row("start of a member until it is ready, median", &format!("{ready:.2} s"));
        let tenth = all.len().div_ceil(10);
        let join: fn(&Joined) -> f64 = |joined| joined.joined.as_secs_f64();
        let first = of(join, all.get(..tenth).unwrap_or_default()).context("nobody")?;
        let last = of(join, all.get(all.len() - tenth..).unwrap_or_default()).context("nobody")?;
        self.row(
            &format!("`cluster join`, median of the first {tenth} and of the last {tenth}"),
            &format!("{first:.2} s, {last:.2} s"),
        );
        Ok(())
    }

    /// What is in etcd.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub(crate) fn keys(&mut self, hall: &Hall) -> Result<()> {
        let told = EtcdMetrics::of(hall)?;
        let keys = hall.etcd.keys("/")?;
        let bytes: usize = keys.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.row(
            "keys in etcd",
            &format!("{}, {:.0} kB", keys.len(), f64::from(u32::try_from(bytes)?) / 1e3),
        );
        let size = told.sum("etcd_mvcc_db_total_size_in_bytes", "");
        self.row("its database, with every revision so far", &format!("{:.1} MB", size / 1e6));
        self.row(
            "watches, watch streams, leases",
            &format!(
                "{}, {}, {}",
                told.sum("etcd_debugging_mvcc_watcher_total", ""),
                told.sum("etcd_debugging_mvcc_watch_stream_total", ""),
                told.sum("etcd_debugging_lease_granted_total", "")
                    - told.sum("etcd_debugging_lease_revoked_total", "")
            ),
        );
        Ok(())
    }

    /// What everybody costs, without and with scrapes.
    ///
    /// # Errors
    /// When there is no member.
    pub(crate) fn costs(&mut self, idle: &Costs, scraped: &Costs) -> Result<()> {
        let interval = self.plan.interval;
        for (when, costs) in
            [("nobody scrapes", idle), (format!("a scrape every {interval} s").as_str(), scraped)]
        {
            let spread = |samples: &Samples, by: f64| -> Result<String> {
                let middle = samples.median().context("no member")? / by;
                Ok(format!("{middle:.1} (at most {:.1})", samples.max().unwrap_or(0.0) / by))
            };
            self.row(
                &format!("{when}: CPU of a member, thousandths of a core"),
                &spread(&costs.member_cpu, 1.0)?,
            );
            self.row(&format!("{when}: resident memory of a member, MB"), &spread(&costs.member_rss, 1e6)?);
            self.row(&format!("{when}: of that for itself alone, MB"), &spread(&costs.member_private, 1e6)?);
            self.row(&format!("{when}: open files of a member"), &spread(&costs.member_files, 1.0)?);
            self.row(
                &format!("{when}: CPU of etcd, thousandths of a core"),
                &format!("{:.0}", costs.etcd_cpu),
            );
            #[allow(clippy::cast_precision_loss, reason = "bytes of one process")]
            let rss = costs.etcd_rss as f64 / 1e6;
            self.row(&format!("{when}: memory of etcd"), &format!("{rss:.0} MB"));
            for (name, rate) in costs.requests.iter().chain(&costs.messages) {
                self.row(&format!("{when}: etcd, {name}"), &format!("{rate:.2} a second"));
            }
            let (got, sent) = costs.wire;
            self.row(
                &format!("{when}: etcd's traffic with members, in and out"),
                &format!("{:.1} kB/s, {:.1} kB/s", got / 1e3, sent / 1e3),
            );
            self.row(&format!("{when}: written to etcd's disk"), &format!("{:.1} kB/s", costs.disk / 1e3));
            if let Some(cpu) = costs.prometheus_cpu {
                self.row(&format!("{when}: CPU of Prometheus, thousandths of a core"), &format!("{cpu:.0}"));
            }
        }
        Ok(())
    }

    /// How fast changes are.
    pub(crate) fn changes(&mut self, changes: &Changes) {
        for (what, samples) in [
            ("a change until it is acknowledged", &changes.answered),
            ("from then until half of the members have it", &changes.half),
            ("until the last one has it", &changes.last),
        ] {
            let (middle, most) = (samples.median().unwrap_or(f64::NAN), samples.max().unwrap_or(f64::NAN));
            self.row(
                &format!("{what}, median and worst of {}", samples.0.len()),
                &format!("{middle:.0} ms, {most:.0} ms"),
            );
        }
    }

    /// What Prometheus says.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn prometheus(&mut self, hall: &Hall) -> Result<()> {
        let prometheus = hall.prometheus.as_ref().context("no Prometheus")?;
        let ask = |query: &str| -> Result<f64> {
            let found = prometheus.query(query)?;
            let value = found.first().and_then(|one| one.pointer("/value/1")?.as_str()?.parse().ok());
            value.with_context(|| format!("{query}: {found:?}"))
        };
        let own = prometheus.get("/metrics")?;
        let own = |name: &str| -> Result<f64> {
            let line = own.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(line.with_context(|| format!("no {name}"))?.parse()?)
        };
        self.row("members up", &format!("{}", ask("sum(up{job=\"miharu\"})")?));
        self.row("instances in Prometheus", &format!("{}", ask("count(incus_procs_total)")?));
        self.row("series in its head", &format!("{}", own("prometheus_tsdb_head_series")?));
        self.row(
            "samples of all scrapes",
            &format!("{}", ask("sum(scrape_samples_scraped{job=\"miharu\"})")?),
        );
        let scrape = "scrape_duration_seconds{job=\"miharu\"}";
        self.row(
            "a scrape, median and worst",
            &format!(
                "{:.3} s, {:.3} s",
                ask(&format!("quantile(0.5, {scrape})"))?,
                ask(&format!("max({scrape})"))?
            ),
        );
        self.row("memory of Prometheus", &format!("{:.0} MB", own("process_resident_memory_bytes")? / 1e6));
        let first = hall.members.first().context("no member")?;
        let started = std::time::Instant::now();
        let told = first.get("/1.0/discovery/prometheus")?;
        self.row(
            "`/1.0/discovery/prometheus`",
            &format!(
                "{:.1} kB, {:.1} ms",
                f64::from(u32::try_from(told.body.len())?) / 1e3,
                started.elapsed().as_secs_f64() * 1e3
            ),
        );
        Ok(())
    }

    /// How an outage was.
    pub(crate) fn outage(&mut self, outage: &Outage) {
        self.row("etcd away for 30 s: members that served all the same", &outage.served.to_string());
        self.row("etcd started again until it answers", &format!("{:.1} s", outage.back.as_secs_f64()));
        self.row(
            "from then until every member is in step",
            &format!("{:.1} s", outage.in_step.as_secs_f64()),
        );
        self.row(
            "CPU until then: etcd, all members together",
            &format!("{:.1} s, {:.1} s", outage.etcd_cpu.as_secs_f64(), outage.members_cpu.as_secs_f64()),
        );
        self.row("reads that etcd answered until then", &format!("{}", outage.reads));
    }

    /// Writes the page, if this was no trial.
    ///
    /// # Errors
    /// When the page has no marks, or cannot be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
        if self.plan.quick || !page.is_file() {
            println!("{PAGE} is left as it is");
            return Ok(());
        }
        let text = fs::read_to_string(&page)?;
        let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no {BEGIN} in {PAGE}"))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("no {END} in {PAGE}"))?;
        fs::write(&page, format!("{before}{BEGIN}\n{}{END}{after}", self.text)).context(PAGE)
    }
}
