//! Clusters of three members, each on a host of its own, on real etcds: one trust and one configuration, whatever dies. One file a
//! subject; see `miharu_e2e::cluster` for the harness.
#![allow(clippy::disallowed_methods, reason = "driving daemons from outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod certificate;
mod clock;
mod crash;
mod harness;
mod joining;
mod outage;
mod prometheus;
mod removal;
mod target;
mod trust;

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::cluster::{Cluster, Member, SOON};
use miharu_e2e::miharud::Reply;
use miharu_e2e::shell;
use serde_json::{Value, json};

/// The value that a member shows for a server key.
fn key(member: &Member, key: &str) -> Result<String> {
    let config = member.get("/1.0")?.json()?;
    Ok(config["metadata"]["config"][key].as_str().unwrap_or_default().to_owned())
}

/// Changes one server key on a member, over the API.
fn set(member: &Member, key: &str, value: &str, headers: &[&str]) -> Result<Reply> {
    let body = json!({"config": {key: value}}).to_string();
    member.daemon()?.ask("PATCH", "/1.0", headers, &body)
}

/// Waits until every member shows this value for a server key.
fn all_show(cluster: &Cluster, name: &str, value: &str) -> Result<Duration> {
    let started = std::time::Instant::now();
    let shows = |member: &Member| key(member, name).is_ok_and(|now| now == value);
    shell::wait_for(&format!("{name}={value} on all members"), SOON, || {
        cluster.members.iter().all(shows).then(|| started.elapsed())
    })
}

/// The warnings that stand on a member: their types.
fn warnings(member: &Member) -> Result<Vec<String>> {
    let list = member.get("/1.0/warnings?recursion=1")?.json()?;
    let stands = |warning: &&Value| warning["status"] != "resolved";
    let of = |warning: &Value| Some(warning["type"].as_str()?.to_owned());
    Ok(list["metadata"].as_array().into_iter().flatten().filter(stands).filter_map(of).collect())
}

/// Waits until a member warns, or no longer warns, that its copy is an old one.
fn until_warned(member: &Member, is_warned: bool) -> Result<()> {
    let mut last = Vec::new();
    let warned = |all: &[String]| all.iter().any(|kind| kind.to_lowercase().contains("cluster"));
    shell::wait_for(&format!("{}: a warning: {is_warned}", member.name), SOON, || {
        last = warnings(member).ok()?;
        (warned(&last) == is_warned).then_some(())
    })
    .map_err(|error| error.context(format!("{last:?}")))
}

/// For how long a member's copy has not been known to be what etcd holds.
fn age(member: &Member) -> Result<f64> {
    member.scrape()?.sum("incus_cluster_sync_age_seconds", &[])
}
