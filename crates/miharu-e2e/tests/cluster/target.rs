//! `/1.0/metrics?target=NAME`: a member's figures through another member.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::cluster::Cluster;
use miharu_e2e::need;
use miharu_e2e::tls::Certificate;
use serde_json::json;

#[test]
fn a_member_answers_for_another_with_the_asker_s_rights() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let mut cluster = Cluster::start()?;
    let all = Certificate::create("all")?;
    let none = Certificate::create("none")?;
    let trust = ["config", "trust", "add-certificate"];
    cluster.first().miharu(&[&trust[..], &[all.crt.to_str().context("path")?, "--type=metrics"]].concat())?;
    cluster.first().miharu(&["project", "create", "shop"])?;
    let few = [none.crt.to_str().context("path")?, "--type=metrics", "--restricted", "--projects=shop"];
    cluster.first().miharu(&[&trust[..], &few[..]].concat())?;
    cluster.becomes(&all, &[200, 200, 200])?;
    cluster.becomes(&none, &[200, 200, 200])?;
    for asked in &cluster.members {
        for target in &cluster.members {
            let path = format!("/1.0/metrics?target={}", target.name);
            let theirs = format!("name=\"{}-1\"", target.name);
            let text = cluster.ask(&asked.metrics_address(), &path, Some(&all), &[])?.text();
            assert!(text.contains(&theirs), "{} for {}: {text}", asked.name, target.name);
            let others = cluster.members.iter().filter(|other| other.name != target.name);
            for other in others {
                assert!(!text.contains(&format!("name=\"{}-1\"", other.name)), "{}", other.name);
            }
            let reply = cluster.ask(&asked.metrics_address(), &path, Some(&none), &[])?;
            assert_eq!(reply.status, 200);
            assert!(!reply.text().contains("name="), "{}", reply.text());
            assert!(!reply.text().contains("uptime_seconds"), "{}", reply.text());
            let stranger = Certificate::create("stranger")?;
            let reply = cluster.ask(&asked.metrics_address(), &path, Some(&stranger), &[])?;
            assert_eq!(reply.status, 403);
        }
    }
    // What they use is told by each of itself, too, and by way of the others.
    for target in &cluster.members {
        let reply = cluster.first().get(&format!("/1.0/usage?target={}", target.name))?;
        let usage = reply.json()?["metadata"].clone();
        let instances = usage["instances"].as_array().with_context(|| reply.text())?;
        let one = format!("{}-1", target.name);
        let is_it = |instance: &&serde_json::Value| instance["name"] == one.as_str();
        let found = instances.iter().find(is_it).with_context(|| usage.to_string())?;
        assert_eq!((&found["location"], &usage["server"]), (&json!(target.name), &json!(target.name)));
        assert_eq!(instances.len(), 2, "its own alone: {usage}");
        let history = format!("/1.0/instances/{one}/history?target={}", target.name);
        let figures = cluster.first().get(&history)?.json()?["metadata"]["figures"].clone();
        assert!(figures["processes"].is_array(), "{figures}");
        let nobody = format!("/1.0/instances/nobody/history?target={}", target.name);
        let reply = cluster.first().get(&nobody)?;
        assert_eq!((reply.status, &reply.json()?["error"]), (404, &json!("Instance not found")));
    }
    let unknown = cluster.first().get("/1.0/metrics?target=nobody")?;
    assert!([400, 404].contains(&unknown.status), "{} {}", unknown.status, unknown.text());
    cluster.members[2].kill();
    let started = Instant::now();
    let away = cluster.first().get("/1.0/metrics?target=orilla")?;
    assert_eq!(away.status, 503);
    assert!(away.text().contains("orilla"), "{}", away.text());
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // One that is there and does not answer keeps nobody waiting for ever.
    cluster.members[1].host.cut()?;
    let started = Instant::now();
    assert_eq!(cluster.first().get("/1.0/metrics?target=langara")?.status, 503);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    Ok(())
}
