//! A virtual machine's figures: what its guest and its monitor told in the last collection, and what the host has of its process.

use miharu_instances::Vm;
use miharu_linux::hypervisor::Memory;
use miharu_linux::read::Buffer;
use miharu_metrics::Part;

use super::{Found, GROUPS, Group, Question, View, read};
use crate::vm::origin::{MonitorWay, Origin, why_no_guest};
use crate::vm::qmp;

pub(super) fn groups(
    question: &Question<'_>,
    vm: &Vm,
    view: &View,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Vec<Group>> {
    let origin = question.guest.map(|guest| guest.origin).unwrap_or_default();
    let process = &question.instance.init;
    Memory::read(process, buffer)?;
    let status: Vec<String> = read(&buffer.take_looks()).collect();
    let machine = Machine { vm, origin, process: process.path().display().to_string(), status };
    let mut groups = Vec::new();
    // An agent tells when the guest booted, which is another moment.
    if origin.guest.is_none() {
        groups.push(question.start(view, buffer)?);
    }
    for (part, what) in GROUPS {
        let found = match part {
            Part::Network => machine.network(question, view, buffer),
            part => machine.found(*part),
        };
        groups.push(question.of_part(*part, what, found));
    }
    Ok(groups)
}

/// One machine, and who tells its figures.
struct Machine<'m> {
    vm: &'m Vm,
    origin: Origin,
    /// The directory of QEMU's process.
    process: String,
    /// What was read for the memory that it takes.
    status: Vec<String>,
}

impl Machine<'_> {
    fn found(&self, part: Part) -> Found {
        let (vm, origin) = (self.vm, &self.origin);
        match part {
            Part::Cpu => origin.cpus(vm).map_or_else(|| self.threads(), Found::from),
            Part::CpuEffective => origin.cpu_effective(vm).map_or_else(|| self.vcpus(), Found::from),
            Part::Disks => {
                origin.disks(vm).map_or_else(|| Found::lacking(self.why_no_monitor()), Found::from)
            }
            Part::Filesystems => self.of_guest(origin.filesystems(vm)),
            Part::Memory => origin.memory(vm).map_or_else(|| self.memory(), Found::from),
            Part::Procs => {
                origin.procs(vm).map_or_else(|| Found::from(format!("{}/stat", self.process)), Found::from)
            }
            Part::PressureCpu | Part::PressureMemory | Part::PressureIo => self.of_guest(origin.pressure(vm)),
            Part::Hypervisor => Found { from: self.status.clone(), reasons: Vec::new() },
            // Only a guest that tells more than these is known to have them.
            Part::Swap | Part::MemoryPeak | Part::OomKills | Part::Hugepages => {
                Found { from: origin.memory(vm).into_iter().collect(), reasons: Vec::new() }
            }
            _ => Found::default(),
        }
    }

    fn of_guest(&self, told: Option<String>) -> Found {
        match told {
            Some(told) => Found { from: vec![told], reasons: vec!["the guest does not tell it".to_owned()] },
            None => Found::lacking(format!("only the guest knows, and {}", why_no_guest(self.vm))),
        }
    }

    /// CPU time of QEMU's threads.
    fn threads(&self) -> Found {
        if let Some(way @ MonitorWay::Qmp(_)) = self.origin.monitor {
            let named = format!("{}/task/THREAD/stat, THREAD being each that it names", self.process);
            return Found { from: vec![way.describe(self.vm, qmp::CPUS, ""), named], reasons: Vec::new() };
        }
        Found {
            from: vec![format!("{}/task/THREAD/stat, of the threads called `CPU N/…`", self.process)],
            reasons: vec![
                "none of its threads is called so: start QEMU with `-name NAME,debug-threads=on`, or give it a \
                 second -qmp on a unix socket"
                    .to_owned(),
            ],
        }
    }

    fn vcpus(&self) -> Found {
        match self.origin.monitor {
            Some(way @ MonitorWay::Qmp(_)) => Found::from(way.describe(self.vm, qmp::CPUS, "")),
            _ => Found::from(format!(
                "{}/task, the threads called `CPU N/…`, and the machine's configuration",
                self.process
            )),
        }
    }

    /// The memory that the guest was given, less what QEMU holds of it.
    fn memory(&self) -> Found {
        let given = match self.origin.monitor {
            Some(way) => way.describe(self.vm, qmp::BALLOON, "balloon.*"),
            None => "the machine's configuration (the guest's memory)".to_owned(),
        };
        let mut from = vec![given];
        from.extend(self.status.iter().cloned());
        let reasons =
            vec![format!("the host cannot look into a guest's memory, and {}", why_no_guest(self.vm))];
        Found { from, reasons }
    }

    fn network(&self, question: &Question<'_>, view: &View, buffer: &mut Buffer) -> Found {
        if let Some(told) = self.origin.interfaces(self.vm) {
            return Found::from(told);
        }
        if self.vm.taps.is_empty() {
            return Found::lacking("it has no interface on this host that carries its traffic alone (a tap)");
        }
        let process = &question.instance.init;
        let is_apart = process.network().is_ok_and(|own| view.network.is_some_and(|host| host != own));
        let taps = self.vm.taps.join(", ");
        if is_apart && process.net_dev(buffer).is_ok() {
            let looks = buffer.take_looks();
            let files = read(&looks).map(|file| format!("{file}, {taps}"));
            return Found { from: files.collect(), reasons: Vec::new() };
        }
        Found::from(format!("the host's own interfaces (RTM_GETLINK, or /proc/1/net/dev): {taps}"))
    }

    fn why_no_monitor(&self) -> String {
        match self.vm.monitors.is_empty() {
            true => {
                "no monitor of the machine can be asked: give QEMU a second -qmp on a unix socket".to_owned()
            }
            false => {
                "no monitor of the machine answers, as where another client holds the only one".to_owned()
            }
        }
    }
}
