//! What `dashboards/` holds, against a Prometheus that scrapes a real miharud with two containers and a virtual machine: every
//! expression of the Grafana dashboards and of the rules parses, and has data where it should, under both prefixes.

mod form;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use miharu_e2e::prometheus::Prometheus;
use miharu_e2e::tls::Certificate;
use miharu_e2e::vm::{Config, DISK};
use miharu_e2e::{Lxc, Miharud, Vm, cgroup, need, scratch, shell};
use serde_json::Value;

use crate::agent::{PORT, from};

/// Expressions that may find nothing here, by a part of them, and why. All others have to find something.
const MAY_BE_EMPTY: [(&str, &str); 8] = [
    ("_gpu_", "this machine has no graphics processor"),
    ("_project_resources_total", "no Incus or LXD runs here"),
    ("_project_limit", "no Incus or LXD runs here"),
    ("_storage_pool_", "no Incus or LXD runs here"),
    ("_runtime_age_seconds", "no Incus or LXD runs here"),
    ("_cluster_sync_age_seconds", "it is in no cluster"),
    ("_instance_scrape_success{job=~\"miharu\", instance=~\".*\", project=~\".*\"} == 0", "all can be read"),
    ("_instance_scrape_success{job=~\"miharu\"} == 0", "all can be read"),
];

/// The dashboards, by their `uid`, which is the name of their file too.
const DASHBOARDS: [&str; 3] = ["miharu", "miharu-instance", "miharu-fleet"];

fn file(path: &str) -> Result<String> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn dashboards() -> Result<Vec<(&'static str, Value)>> {
    let read = |uid: &'static str| {
        let text = file(&format!("dashboards/grafana/{uid}.json"))?;
        Ok((uid, serde_json::from_str(&text).with_context(|| uid)?))
    };
    DASHBOARDS.into_iter().map(read).collect()
}

fn list<'a>(of: &'a Value, what: &str) -> &'a [Value] {
    of[what].as_array().map_or(&[], Vec::as_slice)
}

/// All panels but the rows, those of folded rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = list(dashboard, "panels");
    let all = top.iter().chain(top.iter().flat_map(|row| list(row, "panels")));
    all.filter(|panel| panel["type"] != "row").collect()
}

/// An expression as Grafana sends it, with the variables filled in.
fn filled(expression: &str, prefix: &str, name: &str) -> String {
    [
        ("${prefix}", prefix),
        ("$job", "miharu"),
        ("$host", ".*"),
        ("$project", ".*"),
        ("$name", name),
        ("$top", "10"),
        ("$__rate_interval", "30s"),
    ]
    .iter()
    .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

/// What is asked of Prometheus: where it stands, and what finds something if any of these does.
fn questions(prefix: &str, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut questions = BTreeMap::new();
    for (uid, dashboard) in dashboards()? {
        add_questions(uid, &dashboard, prefix, names, &mut questions)?;
    }
    Ok(questions)
}

fn add_questions(
    uid: &str,
    dashboard: &Value,
    prefix: &str,
    names: &[&str],
    questions: &mut BTreeMap<String, Vec<String>>,
) -> Result<()> {
    for panel in panels(dashboard) {
        for target in list(panel, "targets") {
            let expression = target["expr"].as_str().context("expr")?;
            let place = format!("{uid} {} {} {}", panel["id"], panel["title"], target["refId"]);
            let filled: BTreeSet<_> = names.iter().map(|name| filled(expression, prefix, name)).collect();
            ensure!(!filled.iter().any(|text| text.contains('$')), "{place}: a variable without a value");
            ensure!(questions.insert(place.clone(), filled.into_iter().collect()).is_none(), "{place} twice");
        }
    }
    // A variable's values are those of a label; PromQL has no word for that.
    for variable in list(&dashboard["templating"], "list").iter().filter(|one| one["type"] == "query") {
        let definition = variable["definition"].as_str().context("definition")?;
        assert_eq!(definition, variable["query"]["query"]);
        let inner = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("label_values")?;
        let question = filled(&format!("group by ({label}) ({selector})"), prefix, "");
        questions.insert(format!("{uid} variable {}", variable["name"]), vec![question]);
    }
    Ok(())
}

#[test]
fn promtool_accepts_the_rules_and_their_cases() -> Result<()> {
    need!(Prometheus);
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dashboards/prometheus"));
    for name in ["recording.yml", "alerts.yml"] {
        shell::run("promtool", ["check".as_ref(), "rules".as_ref(), dir.join(name).as_os_str()])?;
        let tests = dir.join("tests").join(name);
        shell::run("promtool", ["test".as_ref(), "rules".as_ref(), tests.as_os_str()])?;
    }
    // Each alert has a case that fires, and a row on the page.
    let tests = file("dashboards/prometheus/tests/alerts.yml")?;
    let cases: Vec<_> = tests.split("alertname: ").skip(1).filter_map(|case| case.split_once('\n')).collect();
    let alerts = file("dashboards/prometheus/alerts.yml")?;
    let alerts: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 9, "{alerts:?}");
    let pages = [file("docs/how-to/dashboards.md")?, file("docs/how-to/dashboards.ja.md")?];
    for alert in alerts {
        let fires = cases.iter().any(|(name, case)| *name == alert && case.contains("exp_labels"));
        assert!(fires, "{alert} has no case that fires");
        for page in &pages {
            assert!(page.contains(&format!("| `{alert}` |")), "docs/how-to/dashboards: no row for {alert}");
        }
    }
    Ok(())
}

/// A Prometheus with the rules, which scrapes this daemon every few seconds over mutual TLS.
fn prometheus(daemon: &Miharud, address: &str) -> Result<Prometheus> {
    let dir = scratch::dir("dashboards")?;
    let client = Certificate::create_in(&dir, "metrics")?;
    fs::copy(daemon.dir.join("server.crt"), dir.join("server.crt"))?;
    let crt = client.crt.to_str().context("path")?;
    daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    for name in ["recording.yml", "alerts.yml"] {
        fs::write(dir.join(name), file(&format!("dashboards/prometheus/{name}"))?)?;
    }
    let config = format!(
        "global: {{ scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 3s }}\n\
         rule_files: [recording.yml, alerts.yml]\n\
         scrape_configs:\n  - job_name: miharu\n    metrics_path: /1.0/metrics\n    scheme: https\n    \
         static_configs: [{{ targets: ['{address}'] }}]\n    \
         tls_config: {{ ca_file: server.crt, cert_file: metrics.crt, key_file: metrics.key }}\n"
    );
    Prometheus::start(dir, &config)
}

/// Every expression of the dashboards finds what it should.
fn all_served(prometheus: &Prometheus, prefix: &str, names: &[&str]) -> Result<()> {
    let scraped =
        || prometheus.query(&format!("{prefix}_instance_info")).ok().filter(|found| !found.is_empty());
    shell::wait_for("the first scrape", Duration::from_secs(30), scraped)?;
    let mut questions = questions(prefix, names)?;
    others::add_questions(prometheus, prefix, &mut questions)?;
    all_found(prometheus, &questions)
}

/// Waits until every question but the excused ones has found something; each is asked at least once, so that each parses.
fn all_found(prometheus: &Prometheus, questions: &BTreeMap<String, Vec<String>>) -> Result<()> {
    let mut open: Vec<_> = questions.iter().collect();
    let found = shell::wait_for("data for every panel", Duration::from_secs(90), || {
        let mut round = || -> Result<bool> {
            let mut still = Vec::new();
            for (place, ways) in &open {
                let mut found = false;
                for way in *ways {
                    found |= !prometheus.query(way).with_context(|| format!("{place}: {way}"))?.is_empty();
                }
                let excused = MAY_BE_EMPTY.iter().any(|(part, _)| ways.iter().all(|way| way.contains(part)));
                if !found && !excused {
                    still.push((*place, *ways));
                }
            }
            open = still;
            Ok(open.is_empty())
        };
        match round() {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    });
    match found {
        Ok(end) => end,
        Err(_) => bail!("nothing found: {open:#?}\n{:#?}", prometheus.targets()),
    }
}

/// Every rule works, and every recorded series is there.
fn rules_work(prometheus: &Prometheus) -> Result<()> {
    shell::wait_for("the rules' first round", Duration::from_secs(30), || {
        let rules = prometheus.rules().ok()?;
        (rules.len() > 20 && rules.iter().all(|rule| rule["health"] != "unknown")).then_some(())
    })?;
    for rule in prometheus.rules()? {
        assert_eq!(rule["health"], "ok", "{rule}");
        let name = rule["name"].as_str().context("name")?;
        if rule["type"] == "recording" {
            shell::wait_for(name, Duration::from_secs(30), || {
                prometheus.query(name).ok().filter(|found| !found.is_empty())
            })?;
        } else {
            prometheus.query(rule["query"].as_str().context("query")?)?;
        }
    }
    Ok(())
}

#[test]
fn every_expression_finds_what_a_real_miharud_serves() -> Result<()> {
    need!(Prometheus, Lxc, Qemu, Tls);
    let _alone = scratch::alone()?;
    // A limit that is used up, so that there is throttling to be seen.
    let quota = if cgroup::is_v2() {
        "lxc.cgroup2.cpu.max = 10000 100000"
    } else {
        "lxc.cgroup.cpu.cfs_quota_us = 10000"
    };
    let busy = Lxc::start(&[quota])?;
    busy.exec("(while :; do :; done) </dev/null >/dev/null 2>&1 &")?;
    let idle = Lxc::start(&[])?;
    let vm = Vm::start(&Config { ports: vec![PORT.into()], ..Config::default() })?;
    vm.start_agent()?;
    let daemon = Miharud::start()?;
    from(&daemon, &vm.name, "agent")?;
    vm.run(&format!(
        "(while :; do dd if=/dev/zero of='{DISK}/x' bs=64k count=4 conv=fsync; echo 3 >/proc/sys/vm/drop_caches; \
         cat '{DISK}/x'; sleep 1; done) </dev/null >/dev/null 2>&1 &"
    ))?;
    let address = daemon.listen("core.metrics_address")?;
    let names = [busy.name.as_str(), idle.name.as_str(), vm.name.as_str()];

    let first = prometheus(&daemon, &address)?;
    all_served(&first, "incus", &names)?;
    rules_work(&first)?;

    daemon.miharu(&["config", "set", "metrics.prefix", "lxd"])?;
    // One that has never seen the other prefix, so that nothing is found on its account.
    let second = prometheus(&daemon, &address)?;
    all_served(&second, "lxd", &names)?;
    rules_work(&second)?;
    // And one that has seen both within the rates' five minutes.
    assert!(!first.query("lxd_instance_info")?.is_empty());
    rules_work(&first)
}
