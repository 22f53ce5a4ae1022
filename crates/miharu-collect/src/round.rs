//! One collection: the host once, each instance by itself, then what needs them all.

mod machines;
mod order;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use miharu_instances::{Incarnation, Instance, Kind};
use miharu_linux::cgroup::{Hierarchies, Version};
use miharu_linux::host::{CpuList, HostFacts};
use miharu_linux::process::MAX_INTERFACES;
use miharu_linux::read::Buffer;
use miharu_linux::statfs::{Identity, Whose};
use miharu_metrics::figures::{Info, Scrape};
use miharu_metrics::{InstanceFigures, InstanceType};

use crate::container::{self, Host, Raw, Reader, whose};
use crate::hung::Reading;
use crate::jobs::{Limits, Outcome};
use crate::kept::Kept;
use crate::warning::{InstanceName, Warning, WarningKind};
use crate::{Collection, Collector, Cpus, HostSize, Options, datasets, filesystems, own_process};

/// An instance and what was read of it.
type Row = (Arc<Instance>, Raw);

/// An instance to read, marked as being read for as long as that takes.
type Job = (Arc<Instance>, Arc<Mutex<Kept>>, Reading<Incarnation>);

pub(crate) fn collect(collector: &Collector, instances: &[Arc<Instance>], options: &Options) -> Collection {
    let (started, start) = ((collector.clock)(), Instant::now());
    let mut round = Round { collector, options, start, warnings: Vec::new() };
    collector.gpus.ask(options.wanted);
    let host = Arc::new(round.read_host());
    let (machines, containers): (Vec<_>, Vec<_>) =
        instances.iter().cloned().partition(|instance| instance.vm.is_some());
    let there: HashSet<&Incarnation> = instances.iter().map(|instance| &instance.incarnation).collect();
    collector.hung.retain(|incarnation| there.contains(incarnation));
    // Guests think while the host's own files are read.
    let asking = round.ask_guests(&machines, &host, started);
    let (of_containers, networks) = (Arc::clone(&host), Arc::clone(&collector.networks));
    let kept = collector.kept.of(&containers);
    let mut rows = round.read_instances(&containers, kept, move |instance, kept, reader| {
        container::read(instance, &of_containers, &networks, kept, reader)
    });
    rows.append(&mut round.read_machines(asking, &host));
    shared::report_each_network_once(&mut rows);
    datasets::add(&mut rows, &collector.datasets);
    round.warnings.extend(collector.gpus.add(&mut rows, options.wanted));
    for (_, raw) in &mut rows {
        options.excluded.leave_out(&mut raw.figures, &mut raw.found);
    }
    round.tell_excess(&rows);
    round.add_filesystems(&mut rows);
    let now = started.duration_since(UNIX_EPOCH).map(|time| time.as_secs_f64()).ok();
    let source = match host.hierarchies.as_ref().map(Hierarchies::version) {
        Some(Version::V2) => "cgroup2",
        Some(Version::V1) | None => "cgroup1",
    };
    let guests = rows.iter().filter_map(|(instance, raw)| machines::guest(instance, raw)).collect();
    for (instance, raw) in &mut rows {
        let left_out = raw.figures.normalise();
        if left_out > 0 {
            let message =
                format!("{left_out} of its devices or mounts are called as others; they are left out");
            round.warn(instance, WarningKind::Incomplete, message);
        }
    }
    if options.cpus == Cpus::Together {
        sum_cpus(collector, &mut rows);
    }
    let instances = rows.into_iter().map(|(instance, raw)| to_metrics(&instance, raw, source, now)).collect();
    let (runtimes, of_runtimes) = collector.runtimes.figures(options.wanted);
    let mut warnings = round.warnings;
    warnings.extend(of_runtimes);
    warnings.sort();
    warnings.dedup();
    let process = own_process(&collector.roots, &host.facts);
    let host = HostSize {
        cpus: host.facts.cpus_online.as_ref().map(CpuList::count).filter(|cpus| *cpus > 0),
        memory: host.facts.mem_total,
    };
    Collection { instances, guests, runtimes, warnings, started, duration: start.elapsed(), process, host }
}

/// A collection under way.
struct Round<'a> {
    collector: &'a Collector,
    options: &'a Options,
    start: Instant,
    warnings: Vec<Warning>,
}

impl Round<'_> {
    fn deadline(&self) -> Instant {
        self.start + self.options.collect_timeout
    }

    fn limits(&self) -> Limits {
        let Options { instance_timeout, collect_timeout, .. } = self.options;
        Limits {
            each: (*instance_timeout).min(*collect_timeout),
            soon: self.start + *collect_timeout * 3 / 4,
            all: self.deadline(),
        }
    }

    fn read_host(&mut self) -> Host {
        let roots = &self.collector.roots;
        let mut buffer = Buffer::new();
        let facts = HostFacts::read(roots, &mut buffer);
        let hierarchies = Hierarchies::find(roots);
        let problems = facts.problems.iter().chain(hierarchies.as_ref().err());
        self.warnings.extend(problems.map(|problem| Warning {
            kind: kind_of(problem),
            instance: None,
            message: problem.to_string(),
        }));
        let last_mounts = &self.collector.host_mounts;
        let host = Host::new(roots, facts, hierarchies.ok(), self.options, last_mounts, &mut buffer);
        self.warnings.extend(host.mounts_left_out.iter().map(|left_out| Warning {
            kind: WarningKind::Incomplete,
            instance: None,
            message: left_out.to_string(),
        }));
        host
    }

    /// Reads the instances side by side. One that is gone is left out; one that could not be read has no figures but its
    /// failure.
    fn read_instances(
        &mut self,
        instances: &[Arc<Instance>],
        kept: Vec<Arc<Mutex<Kept>>>,
        read: impl Fn(&Instance, &mut Kept, &mut Reader) -> miharu_linux::Result<Raw> + Send + Sync + 'static,
    ) -> Vec<Row> {
        let hung = &self.collector.hung;
        let mut rows = Vec::with_capacity(instances.len());
        let mut jobs: Vec<Job> = Vec::with_capacity(instances.len());
        for (instance, kept) in instances.iter().zip(kept) {
            if let Some(reading) = hung.begin(&instance.incarnation, self.start) {
                jobs.push((Arc::clone(instance), kept, reading));
            } else {
                rows.push(self.failed(
                    instance,
                    WarningKind::Unresponsive,
                    Duration::ZERO,
                    "did not answer and is left alone for a while",
                ));
            }
        }
        let load = order::cheapest_first(&mut jobs, |(_, kept, _)| kept);
        let asked: Vec<_> =
            jobs.iter().map(|(instance, kept, _)| (Arc::clone(instance), Arc::clone(kept))).collect();
        let limits = self.limits();
        let work = move |(instance, kept, _reading): Job, reader: &mut Reader| match kept.try_lock() {
            Ok(mut kept) => {
                let began = Instant::now();
                let read = read(&instance, &mut kept, reader);
                (kept.is_known, kept.took) = (true, began.elapsed());
                read
            }
            // An earlier reading panicked, or came back late and still has it.
            Err(_) => read(&instance, &mut Kept::default(), reader),
        };
        let outcomes = self.collector.runner.run(jobs, load, limits, work);
        for ((instance, kept), outcome) in asked.into_iter().zip(outcomes) {
            let row = self.judge(&instance, outcome);
            rows.extend(row.map(|(instance, raw)| (instance, Raw { kept: Some(kept), ..raw })));
        }
        rows
    }

    /// What an outcome means; nothing where the instance is gone.
    fn judge(
        &mut self,
        instance: &Arc<Instance>,
        outcome: Outcome<miharu_linux::Result<Raw>>,
    ) -> Option<Row> {
        let hung = &self.collector.hung;
        match outcome {
            Outcome::Done(result, duration) => {
                hung.came_back(&instance.incarnation);
                match result {
                    Ok(mut raw) => {
                        let success = raw.problems.is_empty() && raw.complaints.is_empty();
                        let duration = raw.waited.saturating_add(duration);
                        raw.figures.scrape = Some(Scrape { success, duration });
                        for (kind, complaint) in std::mem::take(&mut raw.complaints) {
                            self.warn(instance, kind, complaint);
                        }
                        for remark in std::mem::take(&mut raw.remarks) {
                            self.warn(instance, WarningKind::Incomplete, remark);
                        }
                        for problem in &raw.problems {
                            self.warn(instance, kind_of(problem), problem.to_string());
                        }
                        Some((Arc::clone(instance), raw))
                    }
                    Err(error) if error.is_gone() => None,
                    Err(error) => Some(self.failed(instance, kind_of(&error), duration, &error.to_string())),
                }
            }
            Outcome::TimedOut { given } => {
                hung.gave_up(&instance.incarnation, Instant::now());
                // It alone was slow, whether or not it came late in the collection.
                let message = if given < self.options.instance_timeout {
                    "could not be read in what was left for it of the time for all (metrics.collect_timeout)"
                } else {
                    "could not be read in time (metrics.instance_timeout)"
                };
                Some(self.failed(instance, WarningKind::Unresponsive, given, message))
            }
            Outcome::NotStarted | Outcome::CutOff => {
                let message =
                    "was not read, as all took longer than the time there is (metrics.collect_timeout)";
                Some(self.failed(instance, WarningKind::OutOfTime, Duration::ZERO, message))
            }
            Outcome::Failed => Some(self.failed(
                instance,
                WarningKind::Incomplete,
                Duration::ZERO,
                "could not be read: a defect of miharud, see its log",
            )),
        }
    }

    fn failed(&mut self, instance: &Arc<Instance>, kind: WarningKind, duration: Duration, why: &str) -> Row {
        self.warn(instance, kind, why.to_owned());
        let mut raw = Raw::default();
        raw.figures.scrape = Some(Scrape { success: false, duration });
        (Arc::clone(instance), raw)
    }

    fn warn(&mut self, instance: &Instance, kind: WarningKind, message: String) {
        let instance = InstanceName { project: instance.project.clone(), name: instance.name.clone() };
        self.warnings.push(Warning { kind, instance: Some(instance), message });
    }

    /// Warns of instances that have more of something than is served of one.
    fn tell_excess(&mut self, rows: &[Row]) {
        for (instance, raw) in rows {
            if let Some(excess) = raw.found.excess {
                self.warn(instance, WarningKind::Incomplete, excess.to_string());
            }
            if raw.figures.interfaces.len() >= MAX_INTERFACES {
                let message = format!(
                    "it has {MAX_INTERFACES} network interfaces, as many as are served of one instance: further ones are \
                     left out"
                );
                self.warn(instance, WarningKind::Incomplete, message);
            }
        }
    }

    /// Asks for the sizes of all file systems together; an instance on whose file system a thread hangs has failed, one that
    /// ended meanwhile is left out.
    fn add_filesystems(&mut self, rows: &mut Vec<Row>) {
        let deadline = self.deadline().min(Instant::now() + self.options.instance_timeout);
        let found: Vec<_> = rows
            .iter_mut()
            .map(|(_, raw)| {
                let identity = if raw.is_watched() { Identity::SeenAfterwards } else { Identity::Asked };
                (std::mem::take(&mut raw.found), identity)
            })
            .collect();
        let pool = &self.collector.statfs;
        let mut measured = filesystems::measure(&found, pool, self.options.shared_filesystems, deadline);
        let ended: Vec<bool> = rows.iter().map(|(_, raw)| raw.is_running() == Some(false)).collect();
        if ended.contains(&true) {
            let has_ended = |index: usize| ended.get(index).copied().unwrap_or(false);
            let mut index = 0..;
            rows.retain(|_| index.next().is_none_or(|index| !has_ended(index)));
            let mut index = 0..;
            measured.retain(|_| index.next().is_none_or(|index| !has_ended(index)));
        }
        let stuck = pool.stuck();
        for ((instance, raw), measured) in rows.iter_mut().zip(measured) {
            // A guest tells its own.
            if instance.vm.is_some() {
                continue;
            }
            raw.figures.filesystems = measured.rows;
            if measured.missing > 0
                && let Some(Ok(mut kept)) = raw.kept.as_ref().map(|kept| kept.try_lock())
            {
                kept.choice.doubt();
            }
            if measured.late == 0 && measured.denied == 0 {
                continue;
            }
            if let Some(scrape) = &mut raw.figures.scrape {
                scrape.success = false;
            }
            if measured.denied > 0 {
                let message = "miharud may not look into its file systems: it lacks CAP_SYS_PTRACE, or a capability that \
                               the instance has";
                let instance = Arc::clone(instance);
                self.warn(&instance, WarningKind::Denied, message.to_owned());
            }
            if measured.late > 0 && !stuck.iter().any(|stuck| stuck.whose == whose(instance)) {
                let message = format!("{} of its file systems did not answer in time", measured.late);
                let instance = Arc::clone(instance);
                self.warn(&instance, WarningKind::StuckFilesystem, message);
            }
        }
        for stuck in stuck {
            let mountpoint = stuck.mountpoint.display();
            let message =
                format!("the file system at {mountpoint:?} does not answer; its figures are left out");
            match rows.iter_mut().find(|(instance, _)| whose(instance) == stuck.whose) {
                Some((instance, raw)) => {
                    if let Some(scrape) = &mut raw.figures.scrape {
                        scrape.success = false;
                    }
                    let instance = Arc::clone(instance);
                    self.warn(&instance, WarningKind::StuckFilesystem, message);
                }
                // One that has come back belonged to an instance that is no more.
                None if stuck.paused_until.is_some() && stuck.whose != Whose::Host => {}
                None => self.warnings.push(Warning {
                    kind: WarningKind::StuckFilesystem,
                    instance: None,
                    message,
                }),
            }
        }
    }
}

/// Whether it is for want of a right that something could not be read.
fn kind_of(error: &miharu_linux::Error) -> WarningKind {
    match error {
        miharu_linux::Error::Denied { .. } => WarningKind::Denied,
        _ => WarningKind::Incomplete,
    }
}

/// A container's kernel tells every CPU for as long as it runs, a guest those that are online.
fn sum_cpus(collector: &Collector, rows: &mut [Row]) {
    let sums = &collector.cpu_sums;
    let there: HashSet<Incarnation> = rows.iter().map(|(instance, _)| instance.incarnation).collect();
    sums.retain(|machine| there.contains(machine));
    for (instance, raw) in rows {
        if instance.vm.is_some() {
            sums.sum(instance.incarnation, &mut raw.figures);
        } else {
            raw.figures.sum_cpus();
        }
    }
}

fn to_metrics(instance: &Instance, raw: Raw, source: &'static str, now: Option<f64>) -> InstanceFigures {
    let mut figures = raw.figures;
    // A guest has a clock of its own.
    figures.time_seconds = figures.time_seconds.or(now);
    let source = raw.source.unwrap_or(source);
    figures.info = Some(Info { runtime: instance.runtime.to_owned(), source, id: instance.id.clone() });
    InstanceFigures {
        project: instance.project.clone(),
        name: instance.name.clone(),
        instance_type: match instance.kind {
            Kind::Container => InstanceType::Container,
            Kind::VirtualMachine => InstanceType::VirtualMachine,
        },
        figures,
    }
}
