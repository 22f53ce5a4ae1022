//! A real cluster of three: its members, the instances of each through the one that is asked, and one that is gone.

use anyhow::Result;
use miharu_e2e::cluster::Cluster;
use miharu_e2e::need;
use serde_json::json;

use crate::common::{content, names, open, visit};

#[test]
fn a_cluster_shows_its_members_and_what_runs_on_each() -> Result<()> {
    need!(Browser, Containers, Etcd, Tls);
    let mut cluster = Cluster::start()?;
    let (mut browser, _webui) = open(cluster.first().daemon()?)?;
    browser.press("2")?;
    browser.wait("three members", "document.querySelectorAll('.view-list .pill.fine').length === 3")?;
    let text = browser.text("document.querySelector('.view-list').innerText")?;
    assert!(text.contains("abydos (this server)") && text.contains("Online"), "{text}");
    content(&mut browser, "the cluster")?;
    browser.picture("web-cluster")?;

    browser.eval("[...document.querySelectorAll('.view-list a')].find((node) => node.textContent === 'langara').click()")?;
    browser.wait("its instances", "document.querySelector('a.name')?.textContent.startsWith('langara-')")?;
    assert_eq!(browser.text("location.hash")?, "#/instances?target=langara");
    let here = browser.text("document.querySelector('td.c-location').textContent")?;
    assert_eq!(here, "langara");
    let theirs = names(&mut browser)?;
    assert!(theirs.iter().all(|name| name.starts_with("langara-")), "{theirs:?}");
    let members = browser.eval("[...document.querySelectorAll('.filter-choice option')].map((node) => node.value).filter((name) => ['langara', 'orilla'].includes(name))")?;
    assert_eq!(members, json!(["langara", "orilla"]));
    browser.eval("document.querySelector('a.name').click()")?;
    browser.wait(
        "who can tell more",
        "document.querySelector('.sources')?.textContent.includes('Only langara itself can tell')",
    )?;
    browser.wait("a chart", "!!document.querySelector('.chart canvas')")?;
    content(&mut browser, "another member's instance")?;

    cluster.members[2].kill();
    visit(&mut browser, "#/instances?target=orilla", "#trouble:not([hidden])")?;
    let text = browser.text("document.getElementById('trouble').innerText")?;
    assert!(text.contains("orilla"), "{text}");
    cluster.shown(cluster.first(), &[("abydos", "ONLINE"), ("langara", "ONLINE"), ("orilla", "OFFLINE")])?;
    visit(&mut browser, "#/cluster", ".view-list .pill.bad")?;
    Ok(())
}
