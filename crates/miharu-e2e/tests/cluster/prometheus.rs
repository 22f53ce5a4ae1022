//! The walk of the Incus page's job `incus-hdc`, with a real Prometheus that is told by the cluster whom to scrape.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, NAMES, SOON};
use miharu_e2e::prometheus::Prometheus;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{need, scratch, shell};

/// The `tls_config` of the page's job, which it names after the member that made the cluster.
const TLS: &str = "      ca_file: 'tls/abydos.crt'\n      cert_file: 'tls/metrics.crt'\n      key_file: 'tls/metrics.key'\n      \
                   server_name: 'abydos'\n";

/// A folder with what the configuration names, and a certificate in it that the cluster trusts.
fn folder(cluster: &Cluster) -> Result<PathBuf> {
    let dir = scratch::dir("prometheus")?;
    fs::create_dir(dir.join("tls"))?;
    let client = Certificate::create_in(&dir.join("tls"), "metrics")?;
    fs::copy(cluster.first().dir.join("cluster.crt"), dir.join("tls/abydos.crt"))?;
    fs::copy(cluster.first().dir.join("cluster.crt"), dir.join("tls/cluster.crt"))?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.becomes(&client, &[200, 200, 200])?;
    Ok(dir)
}

fn until(prometheus: &Prometheus, query: &str, results: usize) -> Result<Vec<serde_json::Value>> {
    let mut last = Vec::new();
    shell::wait_for(query, SOON, || {
        last = prometheus.query(query).ok()?;
        (last.len() == results).then(|| last.clone())
    })
    .with_context(|| format!("{query}: {:#?}", prometheus.targets()))
}

fn value(found: &[serde_json::Value]) -> Option<f64> {
    found.first()?["value"][1].as_str()?.parse().ok()
}

#[test]
fn the_page_s_job_scrapes_every_member_statically_and_through_discovery() -> Result<()> {
    need!(Containers, Etcd, Tls, Prometheus);
    let mut cluster = Cluster::start()?;
    let dir = folder(&cluster)?;
    let targets: Vec<_> =
        cluster.members.iter().map(|member| format!("'{}'", member.metrics_address())).collect();
    let url = format!("https://{}/1.0/discovery/prometheus", cluster.first().metrics_address());
    let nested = TLS.replace("      ", "          ");
    let job = "    metrics_path: '/1.0/metrics'\n    params:\n      project: ['lxc']\n    scheme: 'https'\n";
    let config = format!(
        "global:\n  scrape_interval: 1s\n\nscrape_configs:\n  - job_name: 'incus-hdc'\n{job}    static_configs:\n      - targets: \
         [{}]\n    tls_config:\n{TLS}  - job_name: 'sd'\n{job}    http_sd_configs:\n      - url: '{url}'\n        refresh_interval: 2s\n        \
         tls_config:\n{nested}    tls_config:\n{TLS}",
        targets.join(", ")
    );
    let prometheus = Prometheus::start_in(&cluster.outside.netns, dir, &config, &[])?;
    for job in ["incus-hdc", "sd"] {
        until(&prometheus, &format!("up{{job=\"{job}\"}} == 1"), 3)?;
        // Each answers for its own containers, and for no other's.
        until(&prometheus, &format!("incus_procs_total{{job=\"{job}\"}}"), 6)?;
        for name in NAMES {
            let query = format!("incus_procs_total{{job=\"{job}\",name=~\"{name}-.\",project=\"lxc\"}}");
            until(&prometheus, &query, 2)?;
        }
    }
    for name in NAMES {
        let found = until(&prometheus, &format!("up{{job=\"sd\",member=\"{name}\"}}"), 1)?;
        assert!(found[0]["metric"]["cluster"].as_str().is_some_and(|name| !name.is_empty()), "{found:?}");
    }

    // Who is away stays a target, so that its absence shows, until it is removed.
    cluster.members[1].kill();
    until(&prometheus, "up{job=\"sd\",member=\"langara\"} == 0", 1)?;
    cluster.shown(cluster.first(), &[("abydos", "ONLINE"), ("langara", "OFFLINE"), ("orilla", "ONLINE")])?;
    std::thread::sleep(Duration::from_secs(5));
    until(&prometheus, "up{job=\"sd\",member=\"langara\"} == 0", 1)?;
    cluster.first().miharu(&["cluster", "remove", "--force", "--yes", "langara"])?;
    shell::wait_for("one target less", SOON, || {
        let targets = prometheus.targets().ok()?;
        let of_sd = targets.iter().filter(|target| target["labels"]["job"] == "sd").count();
        (of_sd == 2).then_some(())
    })?;
    until(&prometheus, "up{job=\"sd\"} == 1", 2)?;
    Ok(())
}

#[test]
fn the_job_that_miharu_prints_scrapes_the_cluster_and_sums_are_right() -> Result<()> {
    need!(Containers, Etcd, Tls, Prometheus);
    let cluster = Cluster::start()?;
    // One token that waits for its use is one operation of the whole cluster; so is one project.
    cluster.members[1].miharu(&["-q", "config", "trust", "add", "laptop"])?;
    cluster.members[2].miharu(&["project", "create", "shop"])?;
    let dir = folder(&cluster)?;
    let printed = cluster.first().miharu(&["prometheus", "scrape-config", "--cluster"])?;
    assert!(printed.contains("http_sd_configs"), "{printed}");
    fs::write(dir.join("printed.yml"), &printed)?;
    shell::run("promtool", ["check".as_ref(), "config".as_ref(), dir.join("printed.yml").as_os_str()])?;
    let config = format!("global:\n  scrape_interval: 1s\n{printed}");
    let prometheus = Prometheus::start_in(&cluster.outside.netns, dir, &config, &[])?;
    until(&prometheus, "up == 1", 3)?;
    until(&prometheus, "incus_procs_total", 6)?;
    let sum = |family: &str| -> Result<f64> {
        value(&prometheus.query(&format!("sum({family})"))?).context(family.to_owned())
    };
    assert_eq!(sum("incus_operations_total")?, 1.0);
    // The certificate that all of them show is one, too, and told of by one.
    let shown =
        prometheus.query("incus_certificate_expiry_timestamp_seconds{certificate=\"server\"} > time()")?;
    assert_eq!(shown.len(), 1, "{shown:?}");
    let running = sum("incus_instances_running").or_else(|_| sum("incus_instances"))?;
    assert_eq!(running, 6.0);
    let age = value(&prometheus.query("max(incus_cluster_sync_age_seconds)")?).context("age")?;
    assert!((0.0..30.0).contains(&age), "{age}");
    Ok(())
}

/// The configuration of the page on scale, for one of two shards here.
fn shard(cluster: &Cluster, number: usize) -> Result<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explanation/scale.md"))?;
    let (_, block) = page.split_once("```yaml\n").context("docs/explanation/scale.md shows no YAML")?;
    let (block, _) = block.split_once("```").context("docs/explanation/scale.md does not end its YAML")?;
    let mut block = format!("global:\n  scrape_interval: 1s\n{block}");
    for (from, to) in [
        ("abydos.hosts.example.net:8444", cluster.members[0].metrics_address()),
        ("langara.hosts.example.net:8444", cluster.members[1].metrics_address()),
        ("modulus: 4", "modulus: 2".to_owned()),
        ("regex: '0'", format!("regex: '{number}'")),
        (
            "/1.0/discovery/prometheus'\n",
            "/1.0/discovery/prometheus'\n        refresh_interval: 2s\n".to_owned(),
        ),
    ] {
        anyhow::ensure!(block.contains(from), "{from} is not in {block}");
        block = block.replace(from, &to);
    }
    Ok(block)
}

#[test]
fn shards_share_the_members_among_them() -> Result<()> {
    need!(Containers, Etcd, Tls, Prometheus);
    let cluster = Cluster::start()?;
    let both = [0, 1].map(|number| -> Result<Prometheus> {
        let dir = folder(&cluster)?;
        Prometheus::start_in(&cluster.outside.netns, dir, &shard(&cluster, number)?, &[])
    });
    let [first, second] = both;
    let (first, second) = (first?, second?);
    // Each member is scraped by one of them, once, though two members tell of it.
    shell::wait_for("three members in two shards", SOON, || {
        let up = |shard: &Prometheus| shard.query("up == 1").map_or(0, |found| found.len());
        (up(&first) + up(&second) == 3).then_some(())
    })
    .with_context(|| format!("{:#?} {:#?}", first.targets(), second.targets()))?;
    for name in NAMES {
        let query = format!("count(incus_procs_total{{member=\"{name}\"}})");
        let counts = [&first, &second].map(|shard| shard.query(&query).ok().and_then(|found| value(&found)));
        assert!(matches!(counts, [Some(2.0), None] | [None, Some(2.0)]), "{name}: {counts:?}");
    }
    Ok(())
}
