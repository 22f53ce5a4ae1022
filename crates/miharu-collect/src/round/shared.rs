//! Network namespaces that several instances share: the containers of a pod, `--network container:NAME`.

use std::collections::HashMap;

use miharu_instances::Instance;

use super::Row;

/// Reports a network that several instances share on the one that holds it for a pod, else on the oldest of them.
pub(super) fn report_each_network_once(rows: &mut [Row]) {
    let mut owners: HashMap<u64, (bool, u64, u32)> = HashMap::new();
    for (instance, raw) in rows.iter() {
        if let Some(network) = raw.network {
            let owner = owners.entry(network).or_insert_with(|| rank(instance));
            *owner = (*owner).min(rank(instance));
        }
    }
    for (instance, raw) in rows.iter_mut() {
        let owner = raw.network.and_then(|network| owners.get(&network));
        if owner.is_some_and(|owner| *owner != rank(instance)) {
            raw.figures.interfaces.clear();
        }
    }
}

/// The least of those in a network reports it. A pod's sandbox that was started anew is younger than the rest.
fn rank(instance: &Instance) -> (bool, u64, u32) {
    (!instance.is_sandbox, instance.incarnation.init_start, instance.init.pid())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use miharu_instances::{Incarnation, Kind};
    use miharu_linux::Roots;
    use miharu_linux::process::ProcDir;
    use miharu_metrics::figures::Interface;

    use super::*;
    use crate::container::Raw;

    fn row(name: &str, init_start: u64, network: Option<u64>) -> Row {
        let instance = Instance {
            project: "podman/shop".into(),
            name: name.into(),
            kind: Kind::Container,
            runtime: "podman",
            id: name.into(),
            init: Arc::new(ProcDir::open(&Roots::default(), std::process::id()).unwrap()),
            cgroup: Default::default(),
            incarnation: Incarnation { cgroup_inode: 0, init_pid: 1, init_start },
            vm: None,
            directory: name.into(),
            image: None,
            is_sandbox: name == "infra",
        };
        let mut raw = Raw { network, ..Raw::default() };
        raw.figures.interfaces.push(Interface::default());
        (Arc::new(instance), raw)
    }

    fn reporting(rows: &mut [Row]) -> Vec<&str> {
        report_each_network_once(rows);
        rows.iter().filter(|(_, raw)| !raw.figures.interfaces.is_empty()).map(|(i, _)| &*i.name).collect()
    }

    #[test]
    fn a_pods_network_is_its_sandboxes_and_others_the_oldests() {
        let mut pod = [row("a", 10, Some(1)), row("infra", 30, Some(1)), row("b", 20, Some(1))];
        assert_eq!(reporting(&mut pod), ["infra"]);
        let mut joined =
            [row("a", 20, Some(1)), row("b", 10, Some(1)), row("c", 30, Some(2)), row("d", 1, None)];
        assert_eq!(reporting(&mut joined), ["b", "c", "d"]);
    }
}
