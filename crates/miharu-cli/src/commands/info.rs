//! `miharu info`: the server, or how one instance does.

mod resources;
mod sources;

use std::io::Write;

use clap::Args;
use http::{Method, StatusCode};
use miharu_api::{InstanceFull, InstanceState, Server, StateNetwork};

use super::Context;
use crate::client::{Ask, encoded};
use crate::error::Failure;
use crate::output::{self, bytes, printable};
use crate::remote;

/// About what.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  miharu info                     The server: version, configuration, certificate
  miharu info --resources         What the host is made of
  miharu info u1                  The instance u1, and where its figures come from
  miharu info web --project shop  The one of that project")]
pub(crate) struct InfoArgs {
    /// The instance; the server without it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// What the host is made of: CPUs, memory, network cards, disks
    #[arg(long, conflicts_with = "name")]
    resources: bool,
}

/// Asks and prints.
pub(crate) async fn run(context: &Context<'_>, args: &InfoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if args.resources {
        let found: miharu_api::resources::Resources = context.client.get("/1.0/resources").await?;
        return resources::write(out, &found);
    }
    match args.name.as_deref().map(remote::strip).transpose()? {
        None | Some("") => {
            let server: Server = context.client.get("/1.0").await?;
            output::write_yaml(out, &server)
        }
        Some(name) => instance(context, name, out).await,
    }
}

async fn instance(context: &Context<'_>, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let mut path = format!("/1.0/instances/{}?recursion=1", encoded(name));
    if let Some(project) = context.project {
        path.push_str(&format!("&project={}", encoded(project)));
    }
    let reply = context.client.send(Ask::new(Method::GET, &path)).await?;
    let full: InstanceFull = reply.metadata().map_err(|failure| match reply.status {
        StatusCode::NOT_FOUND => Failure::request(format!(
            "{failure}\nNo instance '{name}' is running: `miharu list` prints those that are."
        )),
        StatusCode::CONFLICT => {
            Failure::request(format!("{failure}\nSay which one is meant with --project."))
        }
        _ => failure,
    })?;
    write_instance(out, &full)?;
    sources::write(out, sources::ask(context, &full.instance).await)
}

fn write_instance(out: &mut dyn Write, full: &InstanceFull) -> Result<(), Failure> {
    let about = &full.instance;
    let facts = [
        ("Name", about.name.clone()),
        ("Status", about.status.to_uppercase()),
        ("Type", about.instance_type.clone()),
        ("Project", about.project.clone()),
        ("Runtime", about.runtime.clone()),
        ("ID", about.id.clone()),
        ("Image", about.config.get("image.description").cloned().unwrap_or_default()),
        ("Architecture", about.architecture.clone()),
        ("PID", of_state(full, |state| state.pid).map(|pid| pid.to_string()).unwrap_or_default()),
        ("Last Used", date(&about.last_used_at)),
        ("Uptime", of_state(full, |state| state.uptime).map(output::duration).unwrap_or_default()),
        ("Host name", full.state.as_ref().map(|s| s.hostname.clone()).unwrap_or_default()),
        ("vCPUs", of_state(full, |state| state.vcpus).map(|n| n.to_string()).unwrap_or_default()),
        ("Figures from", full.state.as_ref().map(|s| s.source.clone()).unwrap_or_default()),
    ];
    for (what, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{what}: {}", printable(value))?;
    }
    match &full.state {
        Some(state) => {
            write_state(out, state)?;
            // A container's figures come from nobody else.
            if matches!(state.source.as_str(), "host" | "qga") {
                writeln!(
                    out,
                    "\nNo agent answers for the guest: docs/how-to/agent.md tells how miharu-agent is installed. Without one,\n\
                     `miharu config set instances.balloon_interval 10` has the guest report its memory at least."
                )?;
            }
            Ok(())
        }
        None => Ok(writeln!(out, "\nIts figures could not be read: the log of miharud says why.")?),
    }
}

/// A figure of the state, where it is known.
fn of_state(full: &InstanceFull, figure: fn(&InstanceState) -> i64) -> Option<i64> {
    full.state.as_ref().map(figure).filter(|figure| *figure > 0)
}

/// A date without its fractions; nothing for the zero time of Go, which means that it is not known.
fn date(rfc3339: &str) -> String {
    if rfc3339.starts_with("0001-") {
        return String::new();
    }
    match rfc3339.split_once('T') {
        Some((day, rest)) => {
            let clock = rest.get(..8).unwrap_or(rest);
            let zone = if rest.ends_with('Z') {
                " UTC"
            } else {
                rest.find(['+', '-']).and_then(|at| rest.get(at..)).unwrap_or("")
            };
            format!("{day} {clock}{zone}")
        }
        None => rfc3339.to_owned(),
    }
}

/// What is 0 is left out where 0 stands for "not known".
fn write_state(out: &mut dyn Write, state: &InstanceState) -> Result<(), Failure> {
    writeln!(out, "\nResources:")?;
    writeln!(out, "  Processes: {}", state.processes)?;
    if !state.disk.is_empty() {
        writeln!(out, "  Disk usage:")?;
        for (name, disk) in &state.disk {
            let of = if disk.total > 0 { format!(" of {}", bytes(disk.total)) } else { String::new() };
            writeln!(out, "    {}: {}{of}", printable(name), bytes(disk.usage))?;
        }
    }
    if state.cpu.usage > 0 {
        writeln!(out, "  CPU usage:\n    CPU usage (in seconds): {}", state.cpu.usage / 1_000_000_000)?;
    }
    let memory = [
        ("Memory (current)", state.memory.usage),
        ("Memory (peak)", state.memory.usage_peak),
        ("Memory (total)", state.memory.total),
        ("Swap (current)", state.memory.swap_usage),
    ];
    writeln!(out, "  Memory usage:")?;
    for (what, value) in memory.iter().filter(|(_, value)| *value > 0) {
        writeln!(out, "    {what}: {}", bytes(*value))?;
    }
    if !state.network.is_empty() {
        writeln!(out, "  Network usage:")?;
    }
    for (device, network) in &state.network {
        write_network(out, device, network)?;
    }
    Ok(())
}

fn write_network(out: &mut dyn Write, device: &str, network: &StateNetwork) -> Result<(), Failure> {
    let counters = &network.counters;
    writeln!(out, "    {}:", printable(device))?;
    writeln!(out, "      Bytes received: {}", bytes(counters.bytes_received))?;
    writeln!(out, "      Bytes sent: {}", bytes(counters.bytes_sent))?;
    writeln!(out, "      Packets received: {}", counters.packets_received)?;
    writeln!(out, "      Packets sent: {}", counters.packets_sent)?;
    for address in &network.addresses {
        let length = if address.netmask.is_empty() { "" } else { "/" };
        let (family, netmask) = (printable(&address.family), printable(&address.netmask));
        writeln!(out, "      {family}: {}{length}{netmask}", printable(&address.address))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    #[test]
    fn the_server_is_yaml() {
        let fake = Fake::start(vec![Canned::sync(
            r#"{"api_extensions":["metrics"],"api_status":"stable","api_version":"1.0","auth":"trusted","auth_methods":["tls"],"config":{"core.metrics_address":":8444"}}"#,
        )]);
        let (result, out) = fake.miharu(&["info"]);
        result.unwrap();
        expect![[r#"
            config:
              core.metrics_address: :8444
            api_extensions:
            - metrics
            api_status: stable
            api_version: '1.0'
            auth: trusted
            public: false
            auth_methods:
            - tls
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn an_instance_reads_as_in_incus() {
        let fake = Fake::start(vec![
            Canned::sync(
                r#"{"name":"u1","status":"Running","type":"container","project":"lxc","runtime":"lxc","architecture":"x86_64",
                "created_at":"0001-01-01T00:00:00Z","last_used_at":"2026-11-21T20:59:01.25Z",
                "state":{"pid":4242,"processes":7,"source":"cgroup1","memory":{"usage":1887436,"total":1073741824},
                         "cpu":{"usage":3400000000},"disk":{"root":{"usage":1024,"total":2048}},
                         "network":{"eth0":{"counters":{"bytes_received":1500,"packets_received":3}}}}}"#,
            ),
            Canned::sync("{}"),
        ]);
        let (result, out) = fake.miharu(&["info", "local:u1", "--project", "lxc"]);
        result.unwrap();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/instances/u1?recursion=1&project=lxc");
        expect![[r#"
            Name: u1
            Status: RUNNING
            Type: container
            Project: lxc
            Runtime: lxc
            Architecture: x86_64
            PID: 4242
            Last Used: 2026-11-21 20:59:01 UTC
            Figures from: cgroup1

            Resources:
              Processes: 7
              Disk usage:
                root: 1.00KiB of 2.00KiB
              CPU usage:
                CPU usage (in seconds): 3
              Memory usage:
                Memory (current): 1.80MiB
                Memory (total): 1.00GiB
              Network usage:
                eth0:
                  Bytes received: 1.46KiB
                  Bytes sent: 0B
                  Packets received: 3
                  Packets sent: 0

            Sources:
              Cgroups: none of its own
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn a_machine_shows_what_it_has_and_who_tells() {
        let fake = Fake::start(vec![
            Canned::sync(
                r#"{"name":"vm","status":"Running","type":"virtual-machine","project":"qemu","runtime":"qemu",
                "created_at":"0001-01-01T00:00:00Z","last_used_at":"0001-01-01T00:00:00Z",
                "state":{"processes":90,"source":"agent","vcpus":2,"uptime":183,"hostname":"inner\u001b[2J",
                         "memory":{"usage":1024,"total":2048},
                         "network":{"eth0":{"addresses":[{"family":"inet","address":"192.0.2.7","netmask":"24"},
                                                         {"family":"inet6","address":"fe80::1"}]}}}}"#,
            ),
            Canned::sync("{}"),
        ]);
        let (result, out) = fake.miharu(&["info", "vm"]);
        result.unwrap();
        expect![[r#"
            Name: vm
            Status: RUNNING
            Type: virtual-machine
            Project: qemu
            Runtime: qemu
            Uptime: 3m 3s
            Host name: inner�[2J
            vCPUs: 2
            Figures from: agent

            Resources:
              Processes: 90
              Memory usage:
                Memory (current): 1.00KiB
                Memory (total): 2.00KiB
              Network usage:
                eth0:
                  Bytes received: 0B
                  Bytes sent: 0B
                  Packets received: 0
                  Packets sent: 0
                  inet: 192.0.2.7/24
                  inet6: fe80::1

            Sources:
              Cgroups: none of its own
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn a_machine_without_an_agent_is_told_how_to_get_one() {
        for (source, is_told) in [("host", true), ("qga", true), ("agent", false), ("cgroup2", false)] {
            let reply = format!(r#"{{"name":"vm","state":{{"source":"{source}"}}}}"#);
            let fake = Fake::start(vec![Canned::sync(&reply)]);
            let (result, out) = fake.miharu(&["info", "vm"]);
            result.unwrap();
            assert_eq!(out.contains("instances.balloon_interval"), is_told, "{out}");
        }
    }

    #[test]
    fn an_unknown_instance_is_told_with_what_to_do() {
        let fake = Fake::start(vec![
            Canned::error(404, "Instance not found"),
            Canned::error(409, "web runs in the projects a, b"),
        ]);
        let failure = fake.miharu(&["info", "web"]).0.unwrap_err().to_string();
        assert!(failure.starts_with("Instance not found\n") && failure.contains("miharu list"), "{failure}");
        let failure = fake.miharu(&["info", "web"]).0.unwrap_err().to_string();
        assert!(failure.contains("--project"), "{failure}");
    }
}
