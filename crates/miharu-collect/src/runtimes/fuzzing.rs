//! The readers of what the daemons of Incus and LXD answer, for `miharu-fuzz`.

use std::time::Duration;

use miharu_metrics::server::Runtime;

use super::wire::{self, About, ClusterMember, Envelope, Listed, ListedPool, PoolResources, ProjectState};

/// Answers, divided by zero bytes, whatever they are to; what would be served of them.
pub fn daemon(bytes: &[u8]) -> Runtime {
    let mut told = Runtime {
        runtime: "incus",
        server: None,
        age: Duration::ZERO,
        projects: Vec::new(),
        pools: Vec::new(),
    };
    let mut pools = Vec::new();
    for body in bytes.split(|byte| *byte == 0).take(4) {
        if let Ok(Envelope { metadata: listed }) = serde_json::from_slice::<Envelope<Vec<Listed<'_>>>>(body) {
            told.projects.extend(listed.iter().filter_map(wire::project));
        }
        if let Ok(Envelope { metadata: state }) = serde_json::from_slice::<Envelope<ProjectState>>(body)
            && let Some(project) = told.projects.last_mut()
        {
            wire::add_state(project, state);
        }
        if let Ok(Envelope { metadata: listed }) = serde_json::from_slice::<Envelope<Vec<ListedPool>>>(body) {
            pools.extend(listed);
        }
        if let Ok(Envelope { metadata: resources }) = serde_json::from_slice::<Envelope<PoolResources>>(body)
        {
            told.pools.extend(pools.iter().filter_map(|pool| wire::pool(pool, &resources)));
        }
        let about = serde_json::from_slice::<Envelope<About>>(body);
        let members = serde_json::from_slice::<Envelope<Vec<ClusterMember>>>(body);
        if let (Ok(about), Ok(members)) = (about, members) {
            let _ = about.metadata.leads(&members.metadata);
        }
    }
    for project in &told.projects {
        let path = wire::encoded(&project.name);
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'?'));
        assert!(project.resources.len() <= 4 * 64, "more resources than are served");
    }
    told.projects.sort_by(|a, b| a.name.cmp(&b.name));
    told.projects.dedup_by(|later, first| later.name == first.name);
    told.pools.sort_by(|a, b| a.name.cmp(&b.name));
    told.pools.dedup_by(|later, first| later.name == first.name);
    told
}
