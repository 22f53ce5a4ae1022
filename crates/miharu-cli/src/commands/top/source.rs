//! The figures that `miharu top` shows: of the server, or of each member of its cluster.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use miharu_api::{Cluster, ClusterMember, History, Usage};

use super::view::Key;
use crate::client::{Ask, encoded};
use crate::commands::Context;
use crate::error::Failure;

/// How long an answer is awaited on the screen, on which keys are heard meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whom to ask, and for what.
pub(super) struct Source<'a> {
    context: &'a Context<'a>,
    project: Option<&'a str>,
    /// Members of a cluster that are asked through the server; none where the server speaks for itself.
    members: Vec<String>,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What instances use, of all members that answered.
    pub(super) usage: Usage,
    /// Those that did not, and why.
    pub(super) missing: Vec<String>,
}

/// Whether graphs are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Graphs {
    /// They are.
    Wanted,
    /// They are not.
    Left,
}

impl<'a> Source<'a> {
    /// The server, or the member that is named, or all members where the server is one of a cluster.
    pub(super) async fn find(
        context: &'a Context<'a>,
        project: Option<&'a str>,
        target: Option<&str>,
    ) -> Result<Self, Failure> {
        let members = match target {
            Some(member) => vec![member.to_owned()],
            None => members(context).await?,
        };
        Ok(Self { context, project, members })
    }

    /// What all instances use now, by figures that are not much older than `pause`.
    pub(super) async fn usage(&self, graphs: Graphs, pause: Duration) -> Result<Reading, Failure> {
        if self.members.is_empty() {
            return Ok(Reading { usage: self.usage_of(None, graphs, pause).await?, missing: Vec::new() });
        }
        let asked = self.members.iter().map(|member| self.usage_of(Some(member), graphs, pause));
        let mut reading: Option<Usage> = None;
        let mut missing = Vec::new();
        let mut failed = None;
        for (member, answer) in self.members.iter().zip(join_all(asked).await) {
            match (answer, &mut reading) {
                (Ok(usage), Some(reading)) => add(reading, usage),
                (Ok(usage), None) => reading = Some(usage),
                (Err(failure), _) => {
                    missing.push(format!("{member}: {failure}"));
                    failed = failed.or(Some(failure));
                }
            }
        }
        match (reading, failed) {
            (Some(usage), _) => Ok(Reading { usage, missing }),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(Reading::default()),
        }
    }

    /// The last hour of an instance.
    pub(super) async fn history(&self, key: &Key) -> Result<History, Failure> {
        let mut path = format!(
            "/1.0/instances/{}/history?project={}&type={}",
            encoded(&key.name),
            encoded(&key.project),
            encoded(&key.kind)
        );
        if let Some(member) =
            self.members.iter().find(|member| **member == key.location).or(self.members.first())
        {
            path.push_str(&format!("&target={}", encoded(member)));
        }
        self.context.client.send_within(PATIENCE, Ask::new(Method::GET, &path)).await?.metadata()
    }

    async fn usage_of(
        &self,
        member: Option<&str>,
        graphs: Graphs,
        pause: Duration,
    ) -> Result<Usage, Failure> {
        let mut path = format!("/1.0/usage?max_age={}", pause.as_secs().max(1));
        if graphs == Graphs::Wanted {
            path.push_str("&recent=true");
        }
        for (key, value) in [("project", self.project), ("target", member)] {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", encoded(value)));
            }
        }
        let reply = self.context.client.send_within(PATIENCE, Ask::new(Method::GET, &path)).await?;
        reply.metadata().map_err(|failure| match reply.status {
            StatusCode::NOT_FOUND if member.is_none() => Failure::request(format!(
                "{failure}\nThe server does not say what instances use: it is older than this miharu."
            )),
            _ => failure,
        })
    }
}

/// The members of the cluster, those that left it aside; none of a lone server.
async fn members(context: &Context<'_>) -> Result<Vec<String>, Failure> {
    let cluster: Cluster = context.client.get("/1.0/cluster").await?;
    if !cluster.enabled {
        return Ok(Vec::new());
    }
    let members: Vec<ClusterMember> = context.client.get("/1.0/cluster/members?recursion=1").await?;
    Ok(members.into_iter().map(|member| member.server_name).collect())
}

/// Adds what another member says. Together they have the CPUs and the memory of both.
fn add(all: &mut Usage, other: Usage) {
    let Usage { server, time, interval: _, host_cpus, host_memory, instances } = other;
    all.server = format!("{} {server}", all.server);
    all.time = all.time.max(time);
    all.host_cpus = all.host_cpus.zip(host_cpus).map(|(a, b)| a.saturating_add(b));
    all.host_memory = all.host_memory.zip(host_memory).map(|(a, b)| a.saturating_add(b));
    all.instances.extend(instances);
}
