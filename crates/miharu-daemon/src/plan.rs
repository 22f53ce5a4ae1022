//! What the server keys mean for whoever asks for figures: worked out once a change of the state, not once a request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use miharu_collect::{Cpus, Excluded, Layers, Options, RemoteFilesystems, SharedFilesystems};
use miharu_instances::{Chosen, DriverOptions, NAMES, Patterns};
use miharu_metrics::{FAMILIES, FamilySet, Prefix, Wanted};
use miharu_store::{Globs, InstanceGlobs, Settings, State};

/// What follows from one state.
#[derive(Debug)]
pub(crate) struct Plan {
    state: Arc<State>,
    pub(crate) settings: Settings,
    /// What metric names begin with.
    pub(crate) prefix: Prefix,
    /// The families that are served.
    pub(crate) families: FamilySet,
    /// How figures are collected for these families.
    pub(crate) scrape: Arc<Options>,
    /// How they are collected for the rest of the API, which shows what no family that is served may need.
    pub(crate) whole: Arc<Options>,
}

impl Plan {
    fn new(state: Arc<State>) -> Self {
        let settings = state.config.settings();
        let families = FamilySet::all().without(|name| settings.excluded_families.matches(name));
        let whole = Options { wanted: Wanted::all_but_unserved(families), ..options(&settings) };
        let scrape = Options { wanted: Wanted::by(families), ..whole.clone() };
        let prefix = if settings.prefix_lxd { Prefix::Lxd } else { Prefix::Incus };
        Self { state, settings, prefix, families, scrape: Arc::new(scrape), whole: Arc::new(whole) }
    }
}

/// The plan for the state of the moment.
#[derive(Debug, Default)]
pub(crate) struct Plans(ArcSwapOption<Plan>);

impl Plans {
    /// The plan for this state.
    pub(crate) fn of(&self, state: Arc<State>) -> Arc<Plan> {
        let last = self.0.load_full().filter(|plan| Arc::ptr_eq(&plan.state, &state));
        last.unwrap_or_else(|| {
            let plan = Arc::new(Plan::new(state));
            self.0.store(Some(Arc::clone(&plan)));
            plan
        })
    }
}

/// What the server keys say about a collection of everything.
fn options(settings: &Settings) -> Options {
    let excluded = &settings.excluded_devices;
    Options {
        chosen: Arc::new(chosen(settings)),
        wanted: Wanted::all(),
        excluded: Excluded {
            disks: excluded.disks.patterns().into(),
            interfaces: excluded.interfaces.patterns().into(),
            filesystems: excluded.filesystems.patterns().into(),
        },
        cpus: if settings.per_cpu { Cpus::Each } else { Cpus::Together },
        shared_filesystems: if settings.shared_filesystems {
            SharedFilesystems::Serve
        } else {
            SharedFilesystems::LeaveOut
        },
        remote_filesystems: if settings.remote_filesystems {
            RemoteFilesystems::Ask
        } else {
            RemoteFilesystems::Skip
        },
        disk_layers: if settings.all_disk_layers { Layers::All } else { Layers::One },
        instance_timeout: settings.instance_timeout,
        collect_timeout: settings.collect_timeout,
        agent_grace: settings.agent_grace,
        kept_files: settings.kept_files,
        balloon_interval: settings.balloon_interval,
    }
}

/// Which instances are looked for, and which of these are served.
fn chosen(settings: &Settings) -> Chosen {
    let enabled = |driver: &&&str| settings.drivers.has(driver);
    let patterns = |globs: &InstanceGlobs| Patterns {
        names: globs.names.patterns().into(),
        projects: globs.projects.patterns().into(),
        runtimes: globs.runtimes.patterns().into(),
    };
    let drivers = DriverOptions {
        enabled: Some(NAMES.iter().filter(enabled).map(|driver| (*driver).to_owned()).collect()),
        rootless: settings.rootless.clone(),
    };
    Chosen {
        drivers,
        include: patterns(&settings.included_instances),
        exclude: patterns(&settings.excluded_instances),
    }
}

/// Checks that each pattern of `metrics.families.exclude` is the name of a family that there is: any other is a slip of
/// the pen that would leave nothing out.
///
/// # Errors
/// Which one is not.
pub(crate) fn check_families(excluded: &Globs) -> Result<(), String> {
    for pattern in excluded.patterns() {
        let served = FamilySet::all().without(|name| pattern.matches(name)).iter().count();
        if served == FAMILIES.len() {
            return Err(format!("'{pattern}' matches no metric; docs/reference/metrics.md lists them all"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use miharu_metrics::Part;
    use miharu_store::Config;

    use super::*;

    fn state(values: &[(&str, &str)]) -> Arc<State> {
        let values: BTreeMap<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Arc::new(State { config: Config::replace(&values).unwrap(), ..State::default() })
    }

    #[test]
    fn a_plan_is_made_once_a_state() {
        let plans = Plans::default();
        let (first, second) = (state(&[]), state(&[("metrics.prefix", "lxd")]));
        assert!(Arc::ptr_eq(&plans.of(Arc::clone(&first)), &plans.of(Arc::clone(&first))));
        assert_eq!(plans.of(second).prefix, Prefix::Lxd);
        assert_eq!(plans.of(first).prefix, Prefix::Incus);
    }

    #[test]
    fn what_cuts_cardinality_cuts_the_collection_of_a_scrape() {
        let plan = Plan::new(state(&[
            ("metrics.per_cpu", "no"),
            ("metrics.families.exclude", "incus_pressure_*,process_*"),
            ("metrics.devices.exclude", "lo,disk:loop*"),
        ]));
        assert_eq!(plan.scrape.cpus, Cpus::Together);
        assert!(!plan.scrape.wanted.has(Part::PressureCpu) && plan.scrape.wanted.has(Part::Network));
        assert_eq!(plan.scrape.excluded.interfaces.len(), 1);
        assert_eq!(plan.scrape.excluded.disks.len(), 2);
        assert!(plan.families.iter().all(|family| !family.name(Prefix::Lxd).starts_with("process_")));
        assert_eq!(plan.whole.wanted, Wanted::all());
        assert!(plan.whole.covers(&plan.scrape) && !plan.scrape.covers(&plan.whole));
        let usual = Plan::new(state(&[]));
        assert_eq!(usual.scrape, usual.whole);
    }

    #[test]
    fn the_drivers_that_can_be_named_are_those_that_there_are() {
        assert_eq!(miharu_store::DRIVERS, NAMES);
    }

    #[test]
    fn which_instances_are_served_is_part_of_what_a_collection_is_asked_for() {
        let usual = Plan::new(state(&[]));
        let plan = Plan::new(state(&[
            ("instances.drivers", "-docker"),
            ("instances.rootless", "alice"),
            ("instances.include", "project:k8s/*"),
            ("instances.exclude", "web*,runtime:podman"),
        ]));
        let Chosen { drivers, include, exclude } = &*plan.scrape.chosen;
        let enabled = drivers.enabled.as_ref().unwrap();
        assert!(enabled.contains("lxc") && !enabled.contains("docker") && drivers.rootless == ["alice"]);
        assert_eq!((include.projects.len(), exclude.names.len(), exclude.runtimes.len()), (1, 1, 1));
        assert!(Arc::ptr_eq(&plan.scrape.chosen, &plan.whole.chosen));
        assert!(!plan.scrape.covers(&usual.scrape) && !usual.scrape.covers(&plan.scrape));
    }

    #[test]
    fn a_pattern_that_leaves_nothing_out_is_told() {
        let check = |list: &str| check_families(&Globs::parse(list).unwrap());
        for list in
            ["", "pressure_*", "lxd_pressure_*,process_open_fds", "*_total", "incus_memory_?irty_bytes"]
        {
            assert_eq!(check(list), Ok(()), "{list}");
        }
        assert_eq!(
            check("pressure_*,presure_*"),
            Err("'presure_*' matches no metric; docs/reference/metrics.md lists them all".to_owned())
        );
    }
}
