//! What is fed whatever anybody could send: every parser, by name, with the rules that what it read has to obey.
//!
//! `tests/smoke.rs` runs these on their corpora (`fuzz/corpus`) and a few thousand inputs made of them. A target panics where a rule is broken; that nothing panics by itself, takes long or takes much memory is seen by who
//! runs it. Parsers that no other crate may call are reached through the module `fuzzing` of their crate.
#![forbid(unsafe_code)]

mod cursor;
mod exposition;
mod figures;
mod guests;
mod kernel;
mod staged;

/// One thing that is fed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, that of its folder below `fuzz/corpus`.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Feeds it. It panics where what was read breaks the rules.
    pub feed: fn(&[u8]),
}

/// Everything that is fed, in the order of reports.
pub const TARGETS: &[Target] = &[
    target("cgroup_v1", "control files of cgroup v1", kernel::cgroup_v1),
    target("cgroup_v2", "control files of cgroup v2, pressure among them", kernel::cgroup_v2),
    target(
        "process",
        "`/proc/PID`: stat, status, cgroup, net/dev, smaps_rollup, namespaces, sockets",
        kernel::process,
    ),
    target("mounts", "mountinfo of an instance beside the host's", kernel::mounts),
    target("host", "meminfo, uptime, lists of CPUs, loadavg, ZFS' objset files", kernel::host),
    target("netlink", "the kernel's answers about interfaces and addresses", kernel::netlink),
    target("tree", "files of `/proc` and `/sys` of a whole host or guest", staged::tree),
    target("guest_kernel", "the same files as the guest agent reads them", kernel::guest),
    target("command_line", "command lines of monitors, shims, QEMU", miharu_instances::fuzzing::command_line),
    target("qemu_config", "files of QEMU's -readconfig", miharu_instances::fuzzing::qemu_config),
    target("domain_xml", "libvirt's state files", miharu_instances::fuzzing::domain_xml),
    target(
        "names",
        "passwd, machined's records, unit names, container ids",
        miharu_instances::fuzzing::names,
    ),
    target("runtime_json", "JSON of Docker, podman, OCI bundles", miharu_instances::fuzzing::runtime_json),
    target(
        "runtime_protobuf",
        "containerd's and the CRI's answers",
        miharu_instances::fuzzing::runtime_protobuf,
    ),
    target("bolt", "podman's database as a Bolt file", miharu_instances::fuzzing::bolt),
    target("sqlite", "a user's podman database as an SQLite file", miharu_instances::fuzzing::sqlite),
    target("agent", "reports of guest agents: ours, Incus', LXD's", guests::agent),
    target("agent_request", "requests to our guest agent, in pieces", guests::request),
    target("guest_agent", "qemu-guest-agent's answers", guests::guest_agent),
    target("monitor", "QMP", guests::monitor),
    target("libvirt", "libvirt's RPC", guests::libvirt),
    target(
        "conversation",
        "all that an agent, a monitor or libvirt says over its socket",
        staged::conversation,
    ),
    target("daemons", "answers of Incus and LXD about projects and pools", guests::daemons),
    target("server_key", "server keys, globs, lists", miharu_store::fuzzing::server_key),
    target("words", "addresses, expiries, stores, join tokens", miharu_store::fuzzing::words),
    target("certificate", "a certificate's DER", certificate),
    target("authority", "server.ca, ca.crl, server.crt and its key", miharud::fuzzing::authority),
    target("etcd", "what etcd holds of a cluster", miharu_store::fuzzing::etcd),
    target("request", "HTTP targets, queries, headers", miharud::fuzzing::request),
    target("filter", "the parameter `filter`", miharud::fuzzing::filter),
    target("body", "bodies and tokens that clients and members send", miharud::fuzzing::body),
    target("frames", "HTTP/2's frames, in pieces", miharud::fuzzing::frames),
    target("server", "requests of anybody through all routes", staged::server),
    target("encoder", "any figures, encoded and read again", figures::encoder),
];

const fn target(name: &'static str, about: &'static str, feed: fn(&[u8])) -> Target {
    Target { name, about, feed }
}

/// The target of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn certificate(der: &[u8]) {
    miharu_store::fuzzing::certificate(der);
    miharud::fuzzing::shown(der);
}
