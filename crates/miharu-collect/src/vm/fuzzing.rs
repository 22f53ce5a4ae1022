//! The readers of what guests, their agents and their monitors say, for `miharu-fuzz`. Each panics where what it read breaks the
//! reader's own rules, and gives out the figures that would be served.

mod liar;

use std::time::{Duration, Instant, SystemTime};

use miharu_api::report::Answer;
use miharu_linux::block::Layers;
use miharu_metrics::Figures;
use serde_json::value::RawValue;

use super::guard::Guard;
use super::qmp::{self, Message};
use super::report::{self, Addresses, Guest};
use super::{bounds, incus, libvirt_source, qga, xdr};

pub use liar::Liar;

/// A line of our own agent, or the body that the agents of Incus and LXD answer with. The two reports in it, divided by a zero
/// byte, come one after the other from one guest.
pub fn agent(bytes: &[u8]) -> Vec<Figures> {
    let mut guard = Guard::default();
    let mut admitted = Vec::new();
    let now = Instant::now();
    for (place, text) in bytes.split(|byte| *byte == 0).enumerate().take(4) {
        let own = serde_json::from_slice::<Answer>(text).ok().and_then(|answer| answer.metrics);
        let told = own.or_else(|| incus::parse(text).ok());
        let Some(Guest { figures, addresses, hostname, boot }) =
            told.and_then(|told| report::guest(told, Layers::One))
        else {
            continue;
        };
        check_addresses(&addresses);
        assert!(hostname.is_none_or(|name| name.len() <= 255 && !name.contains(|c: char| c.is_control())));
        let later = now + Duration::from_secs(5 * place as u64);
        admitted.extend(guard.admit(figures, boot, later).ok());
    }
    for figures in &admitted {
        check(figures);
    }
    admitted
}

/// A line of qemu-guest-agent, or its answer alone.
pub fn guest_agent(bytes: &[u8]) -> Option<Figures> {
    let answer: &RawValue = match qmp::parse(bytes) {
        Some(Message::Answer(_, Ok(answer))) => answer,
        _ => serde_json::from_slice(bytes).ok()?,
    };
    let (interfaces, addresses) = qga::interfaces(answer).unwrap_or_default();
    check_addresses(&addresses);
    let figures = Figures {
        cpus: qga::cpus(answer).unwrap_or_default(),
        cpu_effective: qga::online_vcpus(answer),
        disks: qga::disks(answer, Layers::All).unwrap_or_default(),
        filesystems: qga::file_systems(answer).unwrap_or_default(),
        interfaces,
        ..Figures::default()
    };
    check(&figures);
    Some(figures)
}

/// A line of QEMU's monitor.
pub fn monitor(line: &[u8]) -> Option<Figures> {
    let answer = match qmp::parse(line)? {
        Message::Answer(_, Ok(answer)) => answer,
        Message::Answer(_, Err(problem)) => {
            assert!(problem.chars().count() <= 200);
            return None;
        }
        Message::Greeting | Message::Event => return None,
    };
    assert!(qmp::cpus(answer).is_none_or(|cpus| cpus.len() <= bounds::MAX_ROWS));
    let _ = (qmp::balloon_device(answer, "/machine/peripheral"), qmp::number(answer));
    let memory = qmp::guest_memory(answer).unwrap_or_default();
    let figures = Figures {
        disks: qmp::disks(answer).unwrap_or_default(),
        memory: miharu_metrics::figures::Memory {
            mem_total: memory.total.or_else(|| qmp::memory_size(answer)),
            mem_available: memory.available,
            mem_free: memory.free,
            usage: qmp::balloon(answer),
            ..Default::default()
        },
        ..Figures::default()
    };
    check(&figures);
    Some(figures)
}

/// A message of libvirt's, with its length in front.
pub fn libvirt(bytes: &[u8]) -> Option<Figures> {
    let (length, message) = bytes.split_first_chunk()?;
    if let Some(following) = xdr::following(*length) {
        assert!(following <= 16 << 20, "more than any answer needs");
    }
    let reply = xdr::reply(message)?;
    let result = match reply.result {
        Ok(result) => result,
        Err(problem) => {
            assert!(problem.chars().count() <= 200);
            return None;
        }
    };
    let _ = xdr::domain(result);
    let told = xdr::agent_answer(result).and_then(|answer| guest_agent(answer.as_bytes()));
    let Some(values) = xdr::statistics(result) else { return told };
    let told = libvirt_source::figures(&values, SystemTime::now());
    let figures = Figures { disks: told.monitor.disks, ..Figures::default() };
    check(&figures);
    Some(figures)
}

fn check(figures: &Figures) {
    assert!(figures.cpus.len() <= bounds::MAX_ROWS && figures.disks.len() <= bounds::MAX_ROWS);
    assert!(figures.filesystems.len() <= bounds::MAX_ROWS && figures.interfaces.len() <= bounds::MAX_ROWS);
    let is_name = |name: &str| !name.is_empty() && name.len() <= 255;
    assert!(figures.disks.iter().all(|disk| is_name(&disk.device)));
    assert!(figures.interfaces.iter().all(|interface| is_name(&interface.device)));
    assert!(figures.filesystems.iter().all(|row| row.mountpoint.len() <= 1024 && row.device.len() <= 1024));
    let is_time = |seconds: Option<f64>| seconds.is_none_or(|seconds| seconds.is_finite() && seconds > 0.0);
    assert!(is_time(figures.boot_time_seconds) && is_time(figures.time_seconds));
}

fn check_addresses(addresses: &[Addresses]) {
    for row in addresses {
        assert!(row.addresses.iter().all(|address| !address.contains(|c: char| c.is_control() || c == '"')));
    }
}
