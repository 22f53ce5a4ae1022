//! Virtual machines in a collection: their guests are asked while the host reads what it can tell of others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use miharu_instances::{Incarnation, Instance};
use miharu_linux::process::Interface;
use miharu_linux::read::Buffer;

use super::{Round, Row, kind_of};
use crate::Guest;
use crate::container::{Host, Raw, Reader};
use crate::own_process::start_time;
use crate::vm::{self, Age};
use crate::warning::{Warning, WarningKind};

/// Virtual machines whose guests are being asked.
pub(super) struct Machines {
    machines: Vec<(Arc<Instance>, Age)>,
    asking: vm::Asking,
}

impl Round<'_> {
    /// Begins to ask all guests and monitors at once.
    pub(super) fn ask_guests(&self, machines: &[Arc<Instance>], host: &Host, now: SystemTime) -> Machines {
        let now = now.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let age = |instance: &Instance| {
            let start = start_time(instance.incarnation.init_start, &host.facts);
            let is_young = start.is_some_and(|start| now - start < self.options.agent_grace.as_secs_f64());
            if is_young { Age::Young } else { Age::Grown }
        };
        let machines: Vec<_> =
            machines.iter().map(|instance| (Arc::clone(instance), age(instance))).collect();
        // The host's part is read when the guests' is known, and needs a moment, too.
        let longest = self.options.instance_timeout.min(self.options.collect_timeout * 3 / 4);
        let until = self.start + longest;
        let guests = &self.collector.guests;
        let asking = guests.ask(&machines, until, self.options);
        Machines { machines, asking }
    }

    /// Waits for the guests, and reads what the host tells of their machines.
    pub(super) fn read_machines(&mut self, asked: Machines, host: &Arc<Host>) -> Vec<Row> {
        let Machines { machines, asking } = asked;
        let answers = Mutex::new(asking.finish());
        if machines.is_empty() {
            return Vec::new();
        }
        let has_taps =
            |(instance, _): &(Arc<Instance>, Age)| instance.vm.as_ref().is_some_and(|vm| !vm.taps.is_empty());
        let mut links = Vec::new();
        if machines.iter().any(has_taps) {
            match miharu_linux::links::read(&self.collector.roots, &mut Buffer::new()) {
                Ok(read) => links = read,
                Err(problem) => {
                    self.warnings.push(Warning {
                        kind: kind_of(&problem),
                        instance: None,
                        message: problem.to_string(),
                    });
                }
            }
        }
        let instances: Vec<_> = machines.iter().map(|(instance, _)| Arc::clone(instance)).collect();
        let ages: HashMap<Incarnation, Age> =
            machines.iter().map(|(instance, age)| (instance.incarnation, *age)).collect();
        let host = Arc::clone(host);
        let nothing_kept = instances.iter().map(|_| Arc::default()).collect();
        self.read_instances(&instances, nothing_kept, move |instance, _, reader| {
            let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance.incarnation);
            let age = ages.get(&instance.incarnation).copied().unwrap_or(Age::Grown);
            machine(instance, answer, age, &host, &links, reader)
        })
    }
}

/// Reads a virtual machine from the host, and takes what its guest told where it did.
fn machine(
    instance: &Instance,
    answer: Option<vm::Answer>,
    age: Age,
    host: &Host,
    links: &[Interface],
    reader: &mut Reader,
) -> miharu_linux::Result<Raw> {
    let Some(machine) = &instance.vm else { return Ok(Raw::default()) };
    let is_late = answer.is_none();
    let vm::Answer { mut told, took } = answer.unwrap_or_default();
    let reading = vm::host::read(instance, &told.monitor.monitor.vcpus, host.network, &mut reader.buffer)?;
    let on_host = vm::host::figures(machine, &reading, &told.monitor.monitor, links, &host.facts);
    let (problems, remarks) = (std::mem::take(&mut told.problems), std::mem::take(&mut told.remarks));
    let mut complaints: Vec<_> =
        problems.into_iter().map(|problem| (WarningKind::Incomplete, problem)).collect();
    if is_late {
        let message = "its guest could not be asked in time (metrics.instance_timeout)";
        complaints.push((WarningKind::Unresponsive, message.to_owned()));
    }
    let vm::Served { figures, source, facts } = vm::serve(told, on_host, age);
    Ok(Raw { figures, source: Some(source), facts, complaints, remarks, waited: took, ..Raw::default() })
}

/// What a guest told, and who told the machine's figures.
pub(super) fn guest(instance: &Instance, raw: &Raw) -> Option<Guest> {
    let vm::Facts { addresses, hostname, origin } = &raw.facts;
    instance.vm.is_some().then(|| Guest {
        project: instance.project.clone(),
        name: instance.name.clone(),
        addresses: addresses.clone(),
        hostname: hostname.clone(),
        origin: *origin,
    })
}
