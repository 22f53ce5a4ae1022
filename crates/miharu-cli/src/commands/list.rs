//! `miharu list`: who runs here.

use std::io::Write;

use clap::Args;
use miharu_api::{InstanceFull, InstanceState, StateNetworkAddress};

use super::Context;
use crate::client::encoded;
use crate::error::Failure;
use crate::filter::{Filter, filters_help};
use crate::output::{self, Format, Rows};

/// What to list, and how.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    filters_help!(),
    "
Columns:
  n name       N processes                 i identifier
  e project    m memory used               4 IPv4 addresses
  t type       u CPU time used (seconds)   6 IPv6 addresses
  r runtime    p process id of its init    v vCPUs
  s state      U time since its start      o origin of its figures
  L location   M memory used, percent      D root file system used

csv has no headers unless it is csv,header; table,noheader leaves them out.

Examples:
  miharu list
  miharu list web type=container
  miharu list runtime=lxc,nspawn -c nem -f csv
  miharu list 'name~=^web-[0-9]+$' 'project~=^docker/'"
))]
pub(crate) struct ListArgs {
    /// Start of a name, KEY=VALUE, or KEY~=REGEX
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// The columns of table, compact and csv
    #[arg(short, long, value_name = "LETTERS", default_value = "netrsNmu")]
    columns: String,
    /// Instances of all projects, as without --project
    #[arg(long)]
    all_projects: bool,
    /// Accepted for users of Incus and LXD
    #[arg(long, hide = true)]
    fast: bool,
}

type Cell = fn(&InstanceFull) -> String;

/// Every column: its letter, its header, what stands in it.
const COLUMNS: &[(char, &str, Cell)] = &[
    ('n', "NAME", |i| i.instance.name.clone()),
    ('e', "PROJECT", |i| i.instance.project.clone()),
    ('t', "TYPE", |i| i.instance.instance_type.to_uppercase()),
    ('r', "RUNTIME", |i| i.instance.runtime.clone()),
    ('s', "STATE", |i| i.instance.status.to_uppercase()),
    ('N', "PROCESSES", |i| of_state(i, |state| state.processes)),
    ('m', "MEMORY USAGE", |i| positive(i, |s| s.memory.usage).map(output::bytes).unwrap_or_default()),
    ('u', "CPU USAGE", |i| {
        positive(i, |s| s.cpu.usage).map(|ns| format!("{}s", ns / 1_000_000_000)).unwrap_or_default()
    }),
    ('p', "PID", |i| of_state(i, |state| state.pid)),
    ('i', "ID", |i| i.instance.id.clone()),
    ('4', "IPV4", |i| addresses(i, "inet")),
    ('6', "IPV6", |i| addresses(i, "inet6")),
    ('v', "VCPUS", |i| of_state(i, |state| state.vcpus)),
    ('U', "UPTIME", |i| positive(i, |s| s.uptime).map(output::duration).unwrap_or_default()),
    ('L', "LOCATION", |i| i.instance.location.clone()),
    ('M', "MEMORY USAGE%", |i| {
        let used = positive(i, |s| s.memory.usage).zip(positive(i, |s| s.memory.total));
        used.map(|(usage, total)| output::percent(usage, total)).unwrap_or_default()
    }),
    ('D', "DISK USAGE", |i| {
        positive(i, |s| s.disk.get("root").map_or(0, |root| root.usage))
            .map(output::bytes)
            .unwrap_or_default()
    }),
    ('o', "SOURCE", |i| i.state.as_ref().map(|state| state.source.clone()).unwrap_or_default()),
];

/// Asks and prints.
pub(crate) async fn run(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = columns(&args.columns)?;
    let filters = Filter::parse_all(&args.filters)?;
    let path = match context.project {
        Some(project) if !args.all_projects => {
            format!("/1.0/instances?recursion=2&project={}", encoded(project))
        }
        _ => "/1.0/instances?recursion=2&all-projects=true".to_owned(),
    };
    let mut instances: Vec<InstanceFull> = context.client.get(&path).await?;
    instances.retain(|instance| filters.iter().all(|filter| filter.passes(instance)));
    instances.sort_by(|a, b| key(a).cmp(&key(b)));
    let rows = Rows {
        headers: columns.iter().map(|(_, header, _)| *header).collect(),
        rows: instances
            .iter()
            .map(|instance| columns.iter().map(|(_, _, cell)| cell(instance)).collect())
            .collect(),
    };
    output::write_list(out, args.format, &rows, &instances)
}

fn key(instance: &InstanceFull) -> (&str, &str) {
    (&instance.instance.project, &instance.instance.name)
}

fn columns(letters: &str) -> Result<Vec<&'static (char, &'static str, Cell)>, Failure> {
    let columns = letters
        .chars()
        .filter(|letter| *letter != ',')
        .map(|letter| {
            COLUMNS.iter().find(|(known, _, _)| *known == letter).ok_or_else(|| {
                let known: String = COLUMNS.iter().map(|(letter, _, _)| *letter).collect();
                Failure::usage(format!(
                    "there is no column '{letter}': `miharu list --help` explains {known}"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if columns.is_empty() {
        return Err(Failure::usage("no column is named: leave -c out for the usual ones"));
    }
    Ok(columns)
}

fn of_state(instance: &InstanceFull, figure: fn(&InstanceState) -> i64) -> String {
    positive(instance, figure).map(|figure| figure.to_string()).unwrap_or_default()
}

/// A figure of the state that is known: the API has no other word for "not known" than 0.
fn positive(instance: &InstanceFull, figure: fn(&InstanceState) -> i64) -> Option<i64> {
    instance.state.as_ref().map(figure).filter(|figure| *figure > 0)
}

fn addresses(instance: &InstanceFull, family: &str) -> String {
    let Some(state) = &instance.state else { return String::new() };
    let wanted = |address: &&StateNetworkAddress| address.family == family && address.scope == "global";
    let each = state.network.iter().flat_map(|(device, network)| {
        network.addresses.iter().filter(wanted).map(move |a| format!("{} ({device})", a.address))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{Canned, Fake};

    const INSTANCES: &str = r#"[
        {"name":"u1","project":"lxc","type":"container","status":"Running","runtime":"lxc","id":"u1","location":"m1",
         "state":{"pid":4242,"processes":7,"vcpus":2,"uptime":93784,"source":"agent","memory":{"usage":1887436,"total":4194304},"disk":{"root":{"usage":2048}},"cpu":{"usage":3400000000},
                  "network":{"eth0":{"addresses":[{"family":"inet","address":"10.0.0.2","scope":"global"}]}}}},
        {"name":"web","project":"default","type":"container","status":"Running","runtime":"incus","location":"none","state":null}
    ]"#;

    fn list(arguments: &[&str]) -> (String, String) {
        let fake = Fake::start(vec![Canned::sync(INSTANCES)]);
        let (result, out) = fake.miharu(&[&["list"], arguments].concat());
        result.unwrap();
        (fake.requests()[0].line(), out)
    }

    #[test]
    fn table() {
        let (request, out) = list(&[]);
        expect!["GET /1.0/instances?recursion=2&all-projects=true"].assert_eq(&request);
        expect![[r#"
            +------+---------+-----------+---------+---------+-----------+--------------+-----------+
            | NAME | PROJECT |    TYPE   | RUNTIME |  STATE  | PROCESSES | MEMORY USAGE | CPU USAGE |
            +------+---------+-----------+---------+---------+-----------+--------------+-----------+
            | web  | default | CONTAINER | incus   | RUNNING |           |              |           |
            +------+---------+-----------+---------+---------+-----------+--------------+-----------+
            | u1   | lxc     | CONTAINER | lxc     | RUNNING | 7         | 1.80MiB      | 3s        |
            +------+---------+-----------+---------+---------+-----------+--------------+-----------+
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn compact_and_csv_take_columns() {
        // Not expect!, which would take the blanks that the lines begin with for its own indentation.
        let compact = list(&["-f", "compact", "-c", "n,p4"]).1;
        let lines = ["  NAME   PID        IPV4", "  web", "  u1    4242  10.0.0.2 (eth0)"];
        assert_eq!(compact.lines().collect::<Vec<_>>(), lines);
        expect![[r#"
            web,default,,
            u1,lxc,1.80MiB,3s
        "#]]
        .assert_eq(&list(&["-f", "csv", "-c", "nemu"]).1);
        expect![[r#"
            web,,,
            u1,2,1d 2h,agent
        "#]]
        .assert_eq(&list(&["-f", "csv", "-c", "nvUo"]).1);
        expect![[r#"
            NAME,LOCATION,MEMORY USAGE%,DISK USAGE
            web,none,,
            u1,m1,45.0%,2.00KiB
        "#]]
        .assert_eq(&list(&["-f", "csv,header", "-c", "nLMD"]).1);
    }

    #[test]
    fn json_holds_all_that_the_server_said() {
        let out = list(&["-f", "json", "runtime=lxc"]).1;
        let read: Vec<InstanceFull> = serde_json::from_str(&out).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].state.as_ref().unwrap().pid, 4242);
    }

    #[test]
    fn filters_add_up() {
        assert_eq!(list(&["-f", "csv", "-c", "n", "u"]).1, "u1\n");
        assert_eq!(list(&["-f", "csv", "-c", "n", "type=CONTAINER", "runtime=incus,lxd"]).1, "web\n");
        assert_eq!(list(&["-f", "csv", "-c", "n", "u", "runtime=incus"]).1, "");
    }

    #[test]
    fn regular_expressions_find_a_part_and_a_bare_word_the_whole() {
        let names = |filters: &[&str]| list(&[&["-f", "csv", "-c", "n"], filters].concat()).1;
        assert_eq!(names(&["name~=e"]), "web\n");
        assert_eq!(names(&["name~=^(u|w)[0-9]$"]), "u1\n");
        assert_eq!(names(&["project~=^def", "runtime~=us"]), "web\n");
        assert_eq!(names(&["name~=WEB"]), "", "capitals count");
        assert_eq!(names(&[".*1"]), "u1\n");
        assert_eq!(names(&["eb"]), "");
        assert_eq!(names(&["u[0-"]), "", "no regular expression, and no name begins with it");
    }

    #[test]
    fn a_project_is_asked_for() {
        let (request, _) = list(&["--project", "docker/shop"]);
        assert_eq!(request, "GET /1.0/instances?recursion=2&project=docker%2Fshop");
    }

    #[test]
    fn mistakes_are_found_before_the_server_is_asked() {
        let fake = Fake::start(vec![]);
        for wrong in [
            vec!["list", "-c", "nX"],
            vec!["list", "-c", ","],
            vec!["list", "colour=red"],
            vec!["list", "runtime=dokcer"],
        ] {
            let result = fake.miharu(&wrong).0;
            assert!(matches!(result, Err(Failure::Usage(_))), "{wrong:?} gave {result:?}");
        }
    }
}
