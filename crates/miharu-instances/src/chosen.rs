//! Which instances are served: by whom they are looked for, and which of those that were found are left out.

use std::sync::Arc;

use glob::Pattern;

use crate::discovery::Warning;
use crate::{DriverOptions, Instance, Scan};

/// What the server keys say about the instances of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// How they are looked for.
    pub drivers: DriverOptions,
    /// Those that are served; every one where there is no pattern.
    pub include: Patterns,
    /// Those that are not, even where `include` has them.
    pub exclude: Patterns,
}

/// Patterns of instances, of which one has to match the whole of what it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    /// Of names.
    pub names: Arc<[Pattern]>,
    /// Of projects.
    pub projects: Arc<[Pattern]>,
    /// Of runtimes.
    pub runtimes: Arc<[Pattern]>,
}

impl Patterns {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.projects.is_empty() && self.runtimes.is_empty()
    }

    fn match_any(&self, project: &str, name: &str, runtime: &str) -> bool {
        let any = |patterns: &[Pattern], text| patterns.iter().any(|pattern| pattern.matches(text));
        any(&self.names, name) || any(&self.projects, project) || any(&self.runtimes, runtime)
    }
}

impl Chosen {
    /// Whether what is called so is served.
    fn has(&self, project: &str, name: &str, runtime: &str) -> bool {
        (self.include.is_empty() || self.include.match_any(project, name, runtime))
            && !self.exclude.match_any(project, name, runtime)
    }

    /// Leaves out of a scan what is not served, and what there is to say of it.
    pub fn choose(&self, scan: &mut Scan) {
        if self.include.is_empty() && self.exclude.is_empty() {
            return;
        }
        let has = |instance: &Instance| self.has(&instance.project, &instance.name, instance.runtime);
        let Scan { instances, warnings } = scan;
        warnings.retain(|warning| match warning {
            Warning::Duplicate { project, name, .. } => {
                let mut called = instances.iter().filter(|i| i.project == *project && i.name == *name);
                called.any(|instance| has(instance))
            }
            Warning::Unnamed { runtime, project, name, .. } => self.has(project, name, runtime),
            _ => true,
        });
        instances.retain(|instance| has(instance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Process, Tree, listed, warned};

    fn patterns(names: &[&str], projects: &[&str], runtimes: &[&str]) -> Patterns {
        let all = |list: &[&str]| list.iter().map(|text| Pattern::new(text).unwrap()).collect();
        Patterns { names: all(names), projects: all(projects), runtimes: all(runtimes) }
    }

    fn left(include: Patterns, exclude: Patterns) -> Vec<&'static str> {
        let chosen = Chosen { include, exclude, ..Chosen::default() };
        let all = [
            ("default", "web1", "incus", "default/web1"),
            ("docker/shop", "web2", "docker", "docker/shop/web2"),
            ("podman", "db", "podman", "podman/db"),
        ];
        let served = all.into_iter().filter(|(project, name, runtime, _)| chosen.has(project, name, runtime));
        served.map(|(.., shown)| shown).collect()
    }

    #[test]
    fn exclude_wins_and_include_limits() {
        let none = Patterns::default;
        assert_eq!(left(none(), none()).len(), 3);
        assert_eq!(left(none(), patterns(&["web*"], &[], &[])), ["podman/db"]);
        assert_eq!(left(none(), patterns(&[], &["docker/*"], &["podman"])), ["default/web1"]);
        assert_eq!(
            left(patterns(&["db"], &["default"], &[]), none()),
            ["default/web1", "podman/db"],
            "any of the patterns"
        );
        assert_eq!(left(patterns(&["*"], &[], &[]), patterns(&["web1"], &[], &["docker"])), ["podman/db"]);
        assert_eq!(left(patterns(&["w"], &[], &[]), none()), [""; 0], "a whole name");
    }

    #[test]
    fn nothing_is_said_of_what_is_left_out() {
        let tree = Tree::v2();
        // Two machines of one name.
        for (pid, unit) in [(100, "machine-n1.scope"), (200, "systemd-nspawn@n1.service")] {
            let scope = format!("machine.slice/{unit}");
            let cgroup = format!("{scope}/supervisor");
            let supervisor = Process {
                pid,
                ppid: 1,
                comm: "systemd-nspawn",
                command_line: "systemd-nspawn|-M|n1",
                uid: 0,
                depth: 1,
                cgroup: &cgroup,
            };
            tree.process(&supervisor);
            let payload = format!("{scope}/payload");
            tree.process(&Process {
                pid: pid + 1,
                ppid: pid,
                comm: "init",
                depth: 2,
                cgroup: &payload,
                ..supervisor
            });
        }
        let choose = |exclude: Patterns| {
            let mut scan = tree.scan();
            Chosen { exclude, ..Chosen::default() }.choose(&mut scan);
            (listed(&scan).len(), warned(&scan).len())
        };
        assert_eq!(choose(Patterns::default()), (1, 1));
        assert_eq!(choose(patterns(&["n2"], &[], &[])), (1, 1));
        assert_eq!(choose(patterns(&[], &[], &["nspawn"])), (0, 0));
    }
}
