//! What the daemons of Incus and LXD answer, and the figures that this makes. Pure: bytes in, figures out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use miharu_metrics::server::{Limit, Project, Resource, StoragePool};
use serde::Deserialize;

/// The longest name that becomes a label; the daemons themselves allow far less.
const MAX_NAME: usize = 256;

/// The most resources of one project.
const MAX_RESOURCES: usize = 64;

/// What a project has a count of, and how the path of such a thing begins. Containers and virtual machines have the same
/// paths and are counted by the daemon.
const KINDS: [(&str, &str); 4] = [
    ("images", "/1.0/images/"),
    ("networks", "/1.0/networks/"),
    ("profiles", "/1.0/profiles/"),
    ("storage-volumes", "/1.0/storage-pools/"),
];

/// The resources of a project's state that are counts of what it has.
const COUNTED: [&str; 2] = ["containers", "virtual-machines"];

/// The role of the member that leads a cluster's database; there is one at a time.
const LEADER: &str = "database-leader";

/// The drivers of pools that all members of a cluster share.
const SHARED: [&str; 9] =
    ["alletra", "ceph", "cephfs", "cephobject", "linstor", "lvmcluster", "powerflex", "pure", "truenas"];

/// What stands around every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) metadata: T,
}

/// `/1.0`: whether the daemon is one of a cluster's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct About {
    #[serde(default)]
    environment: Environment,
}

#[derive(Debug, Default, Deserialize)]
struct Environment {
    #[serde(default)]
    server_clustered: bool,
    #[serde(default)]
    server_name: String,
}

impl About {
    pub(super) fn is_clustered(&self) -> bool {
        self.environment.server_clustered
    }

    /// Whether it is the one member that leads the cluster's database.
    pub(super) fn leads(&self, members: &[ClusterMember]) -> bool {
        let own = members.iter().find(|member| member.server_name == self.environment.server_name);
        own.is_some_and(|member| member.roles.iter().any(|role| role == LEADER))
    }
}

/// A row of `/1.0/cluster/members?recursion=1`.
#[derive(Debug, Deserialize)]
pub(super) struct ClusterMember {
    server_name: String,
    #[serde(default)]
    roles: Vec<String>,
}

/// A row of `/1.0/projects?recursion=1`.
#[derive(Debug, Deserialize)]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    used_by: Vec<Cow<'a, str>>,
}

/// `/1.0/projects/NAME/state`.
#[derive(Debug, Deserialize)]
pub(super) struct ProjectState {
    resources: BTreeMap<String, StateResource>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateResource {
    limit: i64,
    usage: i64,
}

/// A row of `/1.0/storage-pools?recursion=1`.
#[derive(Debug, Deserialize)]
pub(super) struct ListedPool {
    pub(super) name: String,
    driver: String,
}

impl ListedPool {
    /// Whether every member of a cluster sees the same pool.
    pub(super) fn is_shared(&self) -> bool {
        SHARED.contains(&self.driver.as_str())
    }
}

/// `/1.0/storage-pools/NAME/resources`.
#[derive(Debug, Deserialize)]
pub(super) struct PoolResources {
    #[serde(default)]
    space: Space,
}

#[derive(Debug, Default, Deserialize)]
struct Space {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    used: u64,
}

/// A project with the counts that its row tells; nothing where its name is no label.
pub(super) fn project(listed: &Listed<'_>) -> Option<Project> {
    let mut counts: BTreeMap<String, u64> = KINDS.map(|(kind, _)| (kind.to_owned(), 0)).into();
    for path in &listed.used_by {
        let kind = KINDS.iter().find(|(_, begin)| path.starts_with(begin));
        // Of what is in a pool only volumes are volumes.
        let is_counted = |kind: &str| kind != "storage-volumes" || path.contains("/volumes/");
        if let Some((kind, _)) = kind.filter(|(kind, _)| is_counted(kind)) {
            *counts.entry((*kind).to_owned()).or_default() += 1;
        }
    }
    is_name(&listed.name).then(|| Project { name: listed.name.to_string(), counts, ..Project::default() })
}

/// Adds what the project's state tells.
pub(super) fn add_state(project: &mut Project, state: ProjectState) {
    for (name, told) in state.resources.into_iter().filter(|(name, _)| is_name(name)).take(MAX_RESOURCES) {
        let usage = u64::try_from(told.usage).ok();
        if let Some(usage) = usage.filter(|_| COUNTED.contains(&name.as_str())) {
            project.counts.insert(name.clone(), usage);
        }
        let limit = u64::try_from(told.limit).map_or(Limit::Unlimited, Limit::At);
        project.resources.insert(name, Resource { limit, usage });
    }
}

/// A pool; nothing where its name is no label. A size of 0 is one that the daemon does not know.
pub(super) fn pool(listed: &ListedPool, told: &PoolResources) -> Option<StoragePool> {
    let is_known = told.space.total > 0;
    (is_name(&listed.name) && is_name(&listed.driver)).then(|| StoragePool {
        name: listed.name.clone(),
        driver: listed.driver.clone(),
        size_bytes: is_known.then_some(told.space.total),
        used_bytes: is_known.then_some(told.space.used),
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME
}

/// A name as a part of a path.
pub(super) fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> T {
        serde_json::from_str::<Envelope<T>>(text).unwrap().metadata
    }

    #[test]
    fn the_leader_of_a_cluster_is_the_member_with_that_role() {
        let about = |name: &str| {
            parse::<About>(&format!(
                r#"{{"metadata":{{"environment":{{"server_clustered":true,"server_name":"{name}"}}}}}}"#
            ))
        };
        let members: Vec<ClusterMember> = parse(
            r#"{"metadata":[{"server_name":"n1","roles":["database-leader","database"],"status":"Online"},
                {"server_name":"n2","roles":["database"]},{"server_name":"n3"}]}"#,
        );
        assert!(about("n1").is_clustered() && about("n1").leads(&members));
        assert!(!about("n2").leads(&members) && !about("n3").leads(&members) && !about("n4").leads(&members));
        assert!(!parse::<About>(r#"{"metadata":{"environment":{"server_name":"n1"}}}"#).is_clustered());
        assert!(!parse::<About>(r#"{"metadata":{}}"#).is_clustered());
    }

    #[test]
    fn a_project_has_what_its_row_and_its_state_tell() {
        let rows: Vec<Listed<'_>> = parse(
            r#"{"type":"sync","metadata":[{"name":"shop","config":{"limits.cpu":"8"},"used_by":[
                "/1.0/instances/c1?project=shop","/1.0/images/abc?project=shop","/1.0/profiles/default?project=shop",
                "/1.0/profiles/web?project=shop","/1.0/storage-pools/p/volumes/custom/v?project=shop",
                "/1.0/storage-pools/p/buckets/b?project=shop","/1.0/network-acls/a","/1.0/networks/br0"]},
                {"name":"","used_by":[]},{"name":"bare"}]}"#,
        );
        let mut shop = project(&rows[0]).unwrap();
        assert!(project(&rows[1]).is_none() && project(&rows[2]).is_some());
        add_state(
            &mut shop,
            parse(
                r#"{"metadata":{"resources":{"containers":{"Limit":-1,"Usage":3},"virtual-machines":{"Limit":2,"Usage":1},
                    "cpu":{"Limit":8,"Usage":-1}}}}"#,
            ),
        );
        let counts: Vec<_> = shop.counts.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        let expected = [
            ("containers", 3),
            ("images", 1),
            ("networks", 1),
            ("profiles", 2),
            ("storage-volumes", 1),
            ("virtual-machines", 1),
        ];
        assert_eq!(counts, expected);
        assert_eq!(shop.resources["containers"], Resource { limit: Limit::Unlimited, usage: Some(3) });
        assert_eq!(shop.resources["cpu"], Resource { limit: Limit::At(8), usage: None });
    }

    #[test]
    fn a_pool_of_unknown_size_has_none() {
        let listed: Vec<ListedPool> = parse(r#"{"metadata":[{"name":"p","driver":"dir","used_by":null}]}"#);
        let pool = |text| pool(&listed[0], &parse::<PoolResources>(text)).unwrap();
        let known = pool(r#"{"metadata":{"inodes":{"total":9,"used":1},"space":{"total":100,"used":7}}}"#);
        assert_eq!((known.size_bytes, known.used_bytes), (Some(100), Some(7)));
        for unknown in [r#"{"metadata":{"space":{"total":0,"used":0}}}"#, r#"{"metadata":{}}"#] {
            assert_eq!(pool(unknown).size_bytes, None);
        }
    }

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(encoded("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encoded("a/../b?c é"), "a%2F..%2Fb%3Fc%20%C3%A9");
    }
}
