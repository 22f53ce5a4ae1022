//! What everybody costs, over a span of time: the members, etcd, Prometheus.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::measure::{self, Samples};
use miharu_e2e::{interrupt, shell};

use crate::hall::Hall;

/// The figures of one span.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// CPU of each member, in thousandths of one core.
    pub(crate) member_cpu: Samples,
    /// Resident memory of each member at the end, bytes.
    pub(crate) member_rss: Samples,
    /// What a member's memory costs that it shares with nobody, bytes.
    pub(crate) member_private: Samples,
    /// Open files of each member at the end.
    pub(crate) member_files: Samples,
    /// CPU of etcd, in thousandths of one core.
    pub(crate) etcd_cpu: f64,
    /// Its resident memory at the end, bytes.
    pub(crate) etcd_rss: u64,
    /// Requests that it answered in a second, by their name: `Range`, `Txn`.
    pub(crate) requests: Vec<(String, f64)>,
    /// Messages on streams that it got and sent in a second: of leases and watches.
    pub(crate) messages: Vec<(String, f64)>,
    /// Bytes a second that it got from clients and sent to them.
    pub(crate) wire: (f64, f64),
    /// Bytes a second that it wrote to its disk.
    pub(crate) disk: f64,
    /// CPU of Prometheus, in thousandths of one core, where it runs.
    pub(crate) prometheus_cpu: Option<f64>,
}

/// Looks twice, with so much time between.
///
/// # Errors
/// When one of them is gone.
pub(crate) fn observe(hall: &Hall, span: Duration) -> Result<Costs> {
    let pids = hall.pids();
    let etcd = hall.etcd.nodes.first().context("no etcd")?.pid()?;
    let prometheus = hall.prometheus.as_ref().map(miharu_e2e::prometheus::Prometheus::pid);
    let clocks = || -> Result<(Vec<Duration>, Duration, Option<Duration>)> {
        let members = pids.iter().map(|pid| measure::cpu(*pid)).collect::<Result<_>>()?;
        Ok((members, measure::cpu(etcd)?, prometheus.map(measure::cpu).transpose()?))
    };
    let (started, before, told) = (Instant::now(), clocks()?, EtcdMetrics::of(hall)?);
    let wrote = written(etcd)?;
    interrupt::sleep(span)?;
    let (after, told_then, wrote_then) = (clocks()?, EtcdMetrics::of(hall)?, written(etcd)?);
    let seconds = started.elapsed().as_secs_f64();
    let milli =
        |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() / seconds * 1e3;
    let rate = |family: &str, label: &str| (told_then.sum(family, label) - told.sum(family, label)) / seconds;
    let each = |figure: &dyn Fn(u32) -> Result<u64>| -> Result<Samples> {
        #[allow(clippy::cast_precision_loss, reason = "bytes of one process")]
        pids.iter().map(|pid| Ok(figure(*pid)? as f64)).collect::<Result<Vec<_>>>().map(Samples)
    };
    Ok(Costs {
        member_cpu: Samples(
            before.0.iter().zip(&after.0).map(|(before, after)| milli(*before, *after)).collect(),
        ),
        member_rss: each(&|pid| measure::memory(pid, "VmRSS"))?,
        member_private: each(&private)?,
        member_files: each(&|pid| Ok(u64::try_from(measure::open_files(pid)?)?))?,
        etcd_cpu: milli(before.1, after.1),
        etcd_rss: measure::memory(etcd, "VmRSS")?,
        requests: told_then.rates(&told, "grpc_server_handled_total", seconds),
        messages: [("got", "grpc_server_msg_received_total"), ("sent", "grpc_server_msg_sent_total")]
            .into_iter()
            .flat_map(|(word, family)| {
                let rates = told_then.rates(&told, family, seconds);
                let streams = rates
                    .into_iter()
                    .filter(|(name, _)| ["Watch", "LeaseKeepAlive"].contains(&name.as_str()));
                streams.map(move |(name, rate)| (format!("{name}, {word}"), rate)).collect::<Vec<_>>()
            })
            .collect(),
        wire: (
            rate("etcd_network_client_grpc_received_bytes_total", ""),
            rate("etcd_network_client_grpc_sent_bytes_total", ""),
        ),
        disk: f64::from(u32::try_from(wrote_then.saturating_sub(wrote))?) / seconds,
        prometheus_cpu: before.2.zip(after.2).map(|(before, after)| milli(before, after)),
    })
}

/// `Private_Clean` and `Private_Dirty` of a process: what it has for itself, bytes.
fn private(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kilobytes.sum::<u64>() * 1024)
}

/// Bytes that a process has handed to the disk.
fn written(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    Ok(line.parse()?)
}

/// What etcd tells of itself.
pub(crate) struct EtcdMetrics(String);

impl EtcdMetrics {
    /// Asks it.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn of(hall: &Hall) -> Result<Self> {
        let node = hall.etcd.nodes.first().context("no etcd")?;
        let url = format!("http://{}/metrics", node.address);
        let mut curl = hall.netns()?.command("curl");
        Ok(Self(shell::output(curl.args(["--silent", "--fail", "--max-time", "20", &url]))?))
    }

    /// The sum of a family's samples that have this text in their labels.
    pub(crate) fn sum(&self, family: &str, label: &str) -> f64 {
        self.samples(family).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    fn samples(&self, family: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' ']))?;
            let (labels, value) = rest.rsplit_once(' ')?;
            Some((labels, value.parse().ok()?))
        })
    }

    /// By how much a family of gRPC has grown since, in a second, by method.
    fn rates(&self, since: &Self, family: &str, seconds: f64) -> Vec<(String, f64)> {
        let mut methods: Vec<_> = self.samples(family).filter_map(|(labels, _)| method(labels)).collect();
        methods.sort_unstable();
        methods.dedup();
        let rates = methods.into_iter().map(|method| {
            let label = format!("grpc_method=\"{method}\"");
            (method.to_owned(), (self.sum(family, &label) - since.sum(family, &label)) / seconds)
        });
        rates.filter(|(_, rate)| *rate > 0.0).collect()
    }
}

fn method(labels: &str) -> Option<&str> {
    let (_, rest) = labels.split_once("grpc_method=\"")?;
    Some(rest.split_once('"')?.0)
}
