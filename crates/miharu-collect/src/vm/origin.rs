//! Who told what of a virtual machine in a collection. It is kept beside the figures, as what was answered cannot be asked again
//! for the one who wonders where they come from; it is small and costs a collection nothing.

use miharu_instances::{Owner, Vm, Vsock};
use miharu_metrics::figures::Figures;

use super::qga;
use super::qmp::{self, GuestMemory};
use super::session::{GUEST_AGENT_PORT, Teller};

/// Who told the figures of a machine, and which of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who answered for the guest, where somebody did.
    pub(crate) guest: Option<GuestWay>,
    /// Who answered for the machine's monitor, where somebody did.
    pub(crate) monitor: Option<MonitorWay>,
    pub(crate) sides: Sides,
}

/// A way to ask a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestWay {
    /// miharu's agent on its virtio-serial port.
    Port,
    /// miharu's agent on its vsock port.
    Vsock,
    /// The agent of Incus or LXD.
    Managed,
    /// qemu-guest-agent on its virtio-serial port.
    GuestAgent,
    /// qemu-guest-agent by way of libvirt.
    Libvirt,
}

/// A way to ask a machine's monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MonitorWay {
    /// The monitor itself, by its place in [`Vm::monitors`].
    Qmp(usize),
    /// libvirt, which holds it.
    Libvirt,
}

/// Whose figures are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// The host's own.
    #[default]
    Host,
    /// The guest's, as its agent tells them.
    Guest,
    /// The guest's, as its balloon driver tells them to the monitor.
    Balloon,
}

/// Whose each group of figures is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) cpus: Side,
    pub(crate) cpu_effective: Side,
    pub(crate) disks: Side,
    pub(crate) interfaces: Side,
    pub(crate) filesystems: Side,
    pub(crate) memory: Side,
    pub(crate) procs: Side,
    pub(crate) pressure: Side,
}

impl Sides {
    /// What is served where no guest answers: the host's, but for the memory that a balloon tells.
    pub(crate) fn without_guest(balloon: Option<&GuestMemory>) -> Self {
        Self { memory: of_balloon(balloon), ..Self::default() }
    }

    /// What is served where an agent of miharu's kind told `guest`.
    pub(crate) fn of_agent(guest: &Figures) -> Self {
        let is_whole = guest.memory.mem_total.is_some() && guest.memory.mem_free.is_some();
        let or_host = |is_told: bool| if is_told { Side::Guest } else { Side::Host };
        Self {
            cpus: Side::Guest,
            cpu_effective: Side::Guest,
            disks: Side::Guest,
            interfaces: Side::Guest,
            filesystems: Side::Guest,
            memory: or_host(is_whole),
            procs: or_host(guest.procs.is_some()),
            pressure: Side::Guest,
        }
    }

    /// What is served where qemu-guest-agent told `guest`.
    pub(crate) fn of_guest_agent(guest: &Figures, balloon: Option<&GuestMemory>) -> Self {
        let or_host = |is_told: bool| if is_told { Side::Guest } else { Side::Host };
        Self {
            cpus: or_host(!guest.cpus.is_empty()),
            cpu_effective: or_host(guest.cpu_effective.is_some()),
            disks: or_host(!guest.disks.is_empty()),
            interfaces: or_host(!guest.interfaces.is_empty()),
            filesystems: Side::Guest,
            memory: of_balloon(balloon),
            ..Self::default()
        }
    }
}

/// A balloon's figures are taken where it tells what is free.
fn of_balloon(balloon: Option<&GuestMemory>) -> Side {
    let is_whole = balloon.is_some_and(|memory| memory.total.is_some() && memory.free.is_some());
    if is_whole { Side::Balloon } else { Side::Host }
}

impl GuestWay {
    pub(crate) fn teller(self) -> Teller {
        match self {
            Self::Port | Self::Vsock | Self::Managed => Teller::Agent,
            Self::GuestAgent | Self::Libvirt => Teller::GuestAgent,
        }
    }

    /// The way in words; `command` is what qemu-guest-agent is asked.
    pub(crate) fn describe(self, vm: &Vm, command: &str) -> String {
        let socket = |port: &str| {
            let channel = vm.channels.iter().find(|channel| channel.port == port);
            channel.map(|channel| channel.socket.display().to_string()).unwrap_or_default()
        };
        let vsock = || match &vm.vsock {
            Some(Vsock::Cid(cid)) => format!("vsock, context id {cid}"),
            Some(Vsock::Unix(path)) => format!("the vsock device at {}", path.display()),
            None => "vsock".to_owned(),
        };
        match self {
            Self::Port => format!("miharu's guest agent over {}", socket(miharu_api::report::PORT)),
            Self::Vsock => format!("miharu's guest agent over {}", vsock()),
            Self::Managed => {
                let whose = if vm.owner == Owner::Lxd { "LXD" } else { "Incus" };
                format!("the guest agent of {whose}, GET /1.0/metrics over {}", vsock())
            }
            Self::GuestAgent => format!("qemu-guest-agent, {command} over {}", socket(GUEST_AGENT_PORT)),
            Self::Libvirt => format!("qemu-guest-agent, {command} through libvirt"),
        }
    }
}

impl MonitorWay {
    /// The way in words; `command` is what QMP calls the question, `statistics` what libvirt calls the answer.
    pub(crate) fn describe(self, vm: &Vm, command: &str, statistics: &str) -> String {
        match self {
            Self::Qmp(place) => {
                let socket = vm.monitors.get(place).map(|socket| socket.display().to_string());
                format!("QMP {command} over {}", socket.unwrap_or_default())
            }
            Self::Libvirt => format!("libvirt's statistics of the domain, {statistics}"),
        }
    }
}

impl Origin {
    /// Where the guest's CPU time comes from; the others alike.
    pub(crate) fn cpus(&self, vm: &Vm) -> Option<String> {
        self.told(self.sides.cpus, vm, qga::CPUS)
    }

    pub(crate) fn cpu_effective(&self, vm: &Vm) -> Option<String> {
        // Both commands tell which CPUs there are, and which of them was answered is not kept.
        self.told(self.sides.cpu_effective, vm, &format!("{} or {}", qga::CPUS, qga::VCPUS))
    }

    pub(crate) fn disks(&self, vm: &Vm) -> Option<String> {
        let of_monitor = || Some(self.monitor?.describe(vm, qmp::BLOCK_STATISTICS, "block.*"));
        self.told(self.sides.disks, vm, qga::DISKS).or_else(of_monitor)
    }

    pub(crate) fn interfaces(&self, vm: &Vm) -> Option<String> {
        self.told(self.sides.interfaces, vm, qga::INTERFACES)
    }

    pub(crate) fn filesystems(&self, vm: &Vm) -> Option<String> {
        self.told(self.sides.filesystems, vm, qga::FILE_SYSTEMS)
    }

    pub(crate) fn pressure(&self, vm: &Vm) -> Option<String> {
        self.told(self.sides.pressure, vm, "")
    }

    pub(crate) fn procs(&self, vm: &Vm) -> Option<String> {
        self.told(self.sides.procs, vm, "")
    }

    pub(crate) fn memory(&self, vm: &Vm) -> Option<String> {
        match self.sides.memory {
            Side::Balloon => {
                Some(self.monitor?.describe(vm, "qom-get guest-stats of the balloon", "balloon.*"))
            }
            side => self.told(side, vm, ""),
        }
    }

    /// The guest's own word, where that side is the guest's.
    fn told(&self, side: Side, vm: &Vm, command: &str) -> Option<String> {
        let way = self.guest.filter(|_| side == Side::Guest)?;
        Some(way.describe(vm, command))
    }
}

/// What keeps a guest from being asked, where nothing answers.
pub(crate) fn why_no_guest(vm: &Vm) -> String {
    let ports = [miharu_api::report::PORT, GUEST_AGENT_PORT];
    let has_port = vm.channels.iter().any(|channel| ports.contains(&channel.port.as_str()));
    match has_port || vm.vsock.is_some() {
        true => "no agent answers in the guest".to_owned(),
        false => "the machine has neither a vsock device nor a virtio-serial port for an agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use miharu_instances::Channel;
    use miharu_metrics::figures::{CpuTimes, Memory};

    fn vm() -> Vm {
        Vm {
            monitors: vec!["/m/1".into(), "/m/2".into()],
            channels: vec![Channel { port: GUEST_AGENT_PORT.into(), socket: "/c/qga".into() }],
            vsock: Some(Vsock::Cid(7)),
            ..Vm::default()
        }
    }

    #[test]
    fn each_group_names_who_told_it() {
        let guest = Figures { cpus: vec![CpuTimes::new(0)], ..Figures::default() };
        let balloon = GuestMemory { total: Some(2), free: Some(1), ..GuestMemory::default() };
        let origin = Origin {
            guest: Some(GuestWay::GuestAgent),
            monitor: Some(MonitorWay::Qmp(1)),
            sides: Sides::of_guest_agent(&guest, Some(&balloon)),
        };
        let vm = vm();
        assert_eq!(origin.cpus(&vm).unwrap(), "qemu-guest-agent, guest-get-cpustats over /c/qga");
        assert_eq!(origin.disks(&vm).unwrap(), "QMP query-blockstats over /m/2");
        assert_eq!(origin.memory(&vm).unwrap(), "QMP qom-get guest-stats of the balloon over /m/2");
        assert_eq!(origin.interfaces(&vm), None, "the host's");
        let host = Origin { sides: Sides::without_guest(None), ..origin };
        assert_eq!((host.memory(&vm), host.cpus(&vm)), (None, None));
    }

    #[test]
    fn an_agent_tells_memory_only_where_it_tells_all_of_it() {
        let whole = Memory { mem_total: Some(2), mem_free: Some(1), ..Memory::default() };
        let origin = |memory| Origin {
            guest: Some(GuestWay::Vsock),
            monitor: None,
            sides: Sides::of_agent(&Figures { memory, ..Figures::default() }),
        };
        assert_eq!(origin(whole).memory(&vm()).unwrap(), "miharu's guest agent over vsock, context id 7");
        assert_eq!(origin(Memory::default()).memory(&vm()), None);
    }
}
