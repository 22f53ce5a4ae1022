//! Which source's figures are served, and what the host adds to them.

use miharu_metrics::figures::{Figures, Memory};

use super::origin::{Origin, Sides};
use super::qmp::GuestMemory;
use super::report::{Addresses, Guest};
use super::session::{Age, Teller, Told};

/// What is known of a machine beside its figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) addresses: Vec<Addresses>,
    pub(crate) hostname: Option<String>,
    pub(crate) origin: Origin,
}

/// What is served of a machine.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Served {
    pub(crate) figures: Figures,
    /// The label `source`.
    pub(crate) source: &'static str,
    pub(crate) facts: Facts,
}

/// Puts together what is served of a machine of which the host tells `host`. While it is young, a guest that can be asked is
/// waited for, as host figures that end after two minutes help nobody.
pub(crate) fn serve(told: Told, host: Figures, age: Age) -> Served {
    let memory = told.monitor.memory;
    let from = Origin { guest: told.guest_way, monitor: told.monitor_way, sides: Sides::default() };
    let Some((teller, Guest { figures, addresses, hostname, .. })) = told.guest else {
        if age == Age::Young && told.is_awaited {
            let figures = of_the_young(host);
            let facts = Facts { origin: from, ..Facts::default() };
            return Served { figures, source: "host", facts };
        }
        let origin = Origin { sides: Sides::without_guest(memory.as_ref()), ..from };
        let memory = with_balloon(host.memory, memory);
        let facts = Facts { origin, ..Facts::default() };
        return Served { figures: Figures { memory, ..host }, source: "host", facts };
    };
    let sides = match teller {
        Teller::Agent => Sides::of_agent(&figures),
        Teller::GuestAgent => Sides::of_guest_agent(&figures, memory.as_ref()),
    };
    let facts = Facts { addresses, hostname, origin: Origin { sides, ..from } };
    match teller {
        Teller::Agent => Served { figures: of_agent(figures, &host), source: "agent", facts },
        Teller::GuestAgent => Served { figures: of_guest_agent(figures, host, memory), source: "qga", facts },
    }
}

/// What is served while a guest is waited for: what carries the same labels whoever tells it, and so is continued by the
/// guest's own. Dashboards look for these of every machine that runs.
fn of_the_young(host: Figures) -> Figures {
    Figures {
        boot_time_seconds: host.boot_time_seconds,
        cpu_effective: host.cpu_effective,
        memory: host.memory,
        procs: host.procs,
        hypervisor: host.hypervisor,
        ..Figures::default()
    }
}

/// What dashboards look for of every machine and an agent does not tell is left to the host, which knows when the machine was
/// started, how much memory it has, and its tasks. Memory comes from one of both: a difference of two views means nothing.
fn of_agent(figures: Figures, host: &Figures) -> Figures {
    let Figures { mut memory, .. } = figures;
    if memory.mem_total.is_none() || memory.mem_free.is_none() {
        let Memory { mem_total, mem_free, mem_available, .. } = host.memory;
        memory = Memory { mem_total, mem_free, mem_available, ..memory };
    }
    memory.cached = memory.cached.or(host.memory.cached);
    Figures {
        boot_time_seconds: figures.boot_time_seconds.or(host.boot_time_seconds),
        procs: figures.procs.or(host.procs),
        memory,
        hypervisor: host.hypervisor,
        ..figures
    }
}

/// qemu-guest-agent tells no memory, and older ones neither CPU time nor disks. What it tells is the guest's own; the host's
/// counters in the place of the rest have other modes and devices, so nothing is continued by them.
fn of_guest_agent(guest: Figures, host: Figures, memory: Option<GuestMemory>) -> Figures {
    let or_host = |own: Option<u64>, host: Option<u64>| own.or(host);
    Figures {
        cpu_effective: or_host(guest.cpu_effective, host.cpu_effective),
        cpus: if guest.cpus.is_empty() { host.cpus } else { guest.cpus },
        disks: if guest.disks.is_empty() { host.disks } else { guest.disks },
        interfaces: if guest.interfaces.is_empty() { host.interfaces } else { guest.interfaces },
        filesystems: guest.filesystems,
        memory: with_balloon(host.memory, memory),
        ..host
    }
}

/// The balloon's figures are the guest's own, so they replace the host's as far as they go.
fn with_balloon(host: Memory, balloon: Option<GuestMemory>) -> Memory {
    let Some(balloon) = balloon else { return host };
    // Without what is free the rest would be mixed of two views.
    if balloon.total.is_none() || balloon.free.is_none() {
        return host;
    }
    Memory {
        mem_total: balloon.total,
        mem_free: balloon.free,
        mem_available: balloon.available,
        // Older guests do not tell it, and it is looked for even where it is 0.
        cached: balloon.caches.or(host.cached),
        ..host
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miharu_metrics::figures::{CpuMode, CpuTimes, Hypervisor};
    use std::time::Duration;

    fn host() -> Figures {
        Figures {
            boot_time_seconds: Some(5.0),
            cpus: vec![CpuTimes::new(0).with(CpuMode::VcpuUser, Duration::from_secs(1))],
            procs: Some(7),
            memory: Memory { mem_total: Some(100), mem_free: Some(50), cached: Some(0), ..Memory::default() },
            hypervisor: Hypervisor { rss: Some(50), swap: None },
            ..Figures::default()
        }
    }

    fn guest(teller: Teller) -> Told {
        let figures = Figures {
            cpus: vec![CpuTimes::new(0).with(CpuMode::User, Duration::from_secs(9))],
            memory: Memory { mem_total: Some(90), mem_free: Some(30), cached: Some(9), ..Memory::default() },
            ..Figures::default()
        };
        Told { guest: Some((teller, Guest { figures, ..Guest::default() })), ..Told::default() }
    }

    #[test]
    fn an_agents_figures_are_not_mixed_with_the_hosts() {
        let served = serve(guest(Teller::Agent), host(), Age::Grown);
        assert_eq!((served.source, served.figures.memory.mem_total), ("agent", Some(90)));
        assert_eq!(served.figures.memory.cached, Some(9));
        assert_eq!(served.figures.hypervisor.rss, Some(50));
        assert_eq!(served.figures.boot_time_seconds, Some(5.0));
        assert_eq!(served.figures.cpus.len(), 1);
    }

    #[test]
    fn qemu_guest_agent_is_completed_by_balloon_and_host() {
        let mut told = guest(Teller::GuestAgent);
        let served = serve(told, host(), Age::Grown);
        assert_eq!((served.source, served.figures.memory.mem_total), ("qga", Some(100)));
        assert_eq!((served.figures.procs, served.figures.memory.cached), (Some(7), Some(0)));
        told = guest(Teller::GuestAgent);
        told.monitor.memory = Some(GuestMemory {
            last_update: 1,
            total: Some(80),
            free: Some(40),
            available: Some(60),
            caches: Some(3),
        });
        let memory = serve(told, host(), Age::Grown).figures.memory;
        assert_eq!((memory.mem_total, memory.mem_free, memory.cached), (Some(80), Some(40), Some(3)));
    }

    #[test]
    fn a_guest_that_boots_is_waited_for() {
        let awaited = || Told { is_awaited: true, ..Told::default() };
        let served = serve(awaited(), host(), Age::Young);
        assert_eq!((served.figures.memory.mem_total, served.figures.hypervisor.rss), (Some(100), Some(50)));
        let Figures { cpus, disks, interfaces, .. } = served.figures;
        assert!(
            cpus.is_empty() && disks.is_empty() && interfaces.is_empty(),
            "these would end with the guest"
        );
        assert_eq!(serve(awaited(), host(), Age::Grown).figures.memory.mem_total, Some(100));
        assert_eq!(serve(Told::default(), host(), Age::Young).figures.memory.mem_total, Some(100));
    }

    #[test]
    fn what_dashboards_look_for_is_there_whoever_answers() {
        let bare = |teller| Told { guest: Some((teller, Guest::default())), ..Told::default() };
        let caches_unknown = GuestMemory { total: Some(80), free: Some(40), ..GuestMemory::default() };
        let mut with_balloon = bare(Teller::GuestAgent);
        with_balloon.monitor.memory = Some(caches_unknown);
        let awaited = Told { is_awaited: true, ..Told::default() };
        let tolds = [Told::default(), awaited, bare(Teller::Agent), bare(Teller::GuestAgent), with_balloon];
        for told in tolds {
            let served = serve(told, host(), Age::Young);
            let Memory { mem_total, mem_free, cached, .. } = served.figures.memory;
            assert!(mem_total.is_some() && mem_free.is_some() && cached.is_some(), "{}", served.source);
            assert!(served.figures.procs.is_some() && served.figures.boot_time_seconds.is_some());
        }
    }
}
