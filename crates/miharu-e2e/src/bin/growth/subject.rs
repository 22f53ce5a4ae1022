//! The daemon that is measured, and what one case of a scenario cost it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Cost, Costs};
use miharu_e2e::{Exposition, Miharud, interrupt};
use serde::{Deserialize, Serialize};

/// Samples of a case.
const SAMPLES: usize = 7;

/// How much CPU time one sample holds at least, so that the clock's own cost does not show.
const SAMPLE: Duration = Duration::from_millis(250);

/// How long one sample takes at most, as long as one scrape does not take longer.
const LONGEST_SAMPLE: Duration = Duration::from_secs(2);

/// What a case cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// CPU and wall time of one scrape.
    pub(crate) scrape: Costs,
    /// Resident memory afterwards.
    pub(crate) rss_bytes: u64,
    /// Open descriptors afterwards.
    pub(crate) descriptors: usize,
    /// By how much the host's slab memory is larger than before the daemon began, where that was measured. Whatever else
    /// happens on the machine is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_bytes: Option<i64>,
    /// Instances that were read with success.
    pub(crate) succeeded: usize,
    /// Bytes of the answer.
    pub(crate) answer_bytes: usize,
    /// Other figures of this case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) notes: BTreeMap<String, f64>,
}

/// A daemon and a connection to it.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) daemon: Miharud,
    pub(crate) scraper: Scraper,
    slab: u64,
}

impl Subject {
    /// Starts one of which every scrape is fresh.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(crate) fn start() -> Result<Self> {
        let slab = measure::host_memory("Slab")?;
        let daemon = Miharud::start()?;
        let scraper = Scraper::unix(&daemon.dir.join("unix.socket"))?;
        Ok(Self { daemon, scraper, slab })
    }

    /// Sets a server key.
    ///
    /// # Errors
    /// When the daemon refuses, as one that is older than the key.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.daemon.miharu(&["config", "set", key, value])?;
        Ok(())
    }

    /// CPU time that the daemon has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        measure::cpu(self.daemon.pid())
    }

    /// One scrape.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn scrape(&mut self) -> Result<Vec<u8>> {
        interrupt::check()?;
        Ok(self.scraper.get("/1.0/metrics", &[])?.body)
    }

    /// Measures fresh scrapes.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn measure(&mut self) -> Result<Figures> {
        // The first one finds everybody and opens files: it is the start's, not the scrape's.
        let before = self.cpu()?;
        self.scrape()?;
        let first = self.cpu()?.saturating_sub(before);
        let pid = self.daemon.pid();
        let one = measure::cost(1, || measure::cpu(pid), || self.scrape().map(|_| ()))?;
        let times = times(&one);
        let mut costs = Vec::new();
        for _ in 0..SAMPLES {
            costs.push(measure::cost(times, || measure::cpu(pid), || self.scrape().map(|_| ()))?);
        }
        let mut figures = self.state(costs.into_iter().collect())?;
        figures.notes.insert("first_scrape_cpu_us".into(), first.as_secs_f64() * 1e6);
        Ok(figures)
    }

    /// How it is now, with costs that were measured otherwise.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn state(&mut self, scrape: Costs) -> Result<Figures> {
        let body = self.scrape()?;
        let answer_bytes = body.len();
        let exposition = Exposition::parse(&String::from_utf8(body).context("not UTF-8")?)?;
        let pid = self.daemon.pid();
        let slab = i64::try_from(measure::host_memory("Slab")?)? - i64::try_from(self.slab)?;
        Ok(Figures {
            scrape,
            rss_bytes: measure::memory(pid, "VmRSS")?,
            descriptors: measure::open_files(pid)?,
            kernel_bytes: Some(slab),
            succeeded: succeeded(&exposition),
            answer_bytes,
            notes: BTreeMap::new(),
        })
    }
}

/// How many scrapes make a sample, where one costs that.
fn times(one: &Cost) -> u32 {
    let enough = SAMPLE.as_secs_f64() * 1e6 / one.cpu_us.max(1.0);
    // A file system that keeps everybody waiting is no reason to wait for minutes.
    let patience = LONGEST_SAMPLE.as_secs_f64() * 1e6 / one.wall_us.max(1.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let times = enough.min(patience).clamp(1.0, 50.0) as u32;
    times
}

/// Instances that were read with success.
pub(crate) fn succeeded(exposition: &Exposition) -> usize {
    exposition
        .select("incus_instance_scrape_success", &[])
        .iter()
        .filter(|sample| sample.value == 1.0)
        .count()
}
