//! Many scrapers at once.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use miharu_e2e::{Exposition, Lxc, Miharud, need};

#[test]
fn fifty_scrapers_on_a_cold_cache_cause_one_collection_and_get_the_same_bytes() -> Result<()> {
    need!(Lxc);
    let _containers = [Lxc::start(&[])?, Lxc::start(&[])?, Lxc::start(&[])?];
    let daemon = Miharud::with(&[])?;
    let bodies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(|| daemon.get("/1.0/metrics"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut different = BTreeSet::new();
    for reply in &bodies {
        ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
        different.insert(reply.body.clone());
    }
    assert_eq!(different.len(), 1, "{} different answers", different.len());
    let text = bodies[0].text();
    let collected = Exposition::parse(&text)?.value("incus_scrape_timestamp_seconds", &[])?;
    assert!(collected > 1e9);
    // Within the cache time nobody collects again.
    assert_eq!(daemon.get("/1.0/metrics")?.text(), text);
    Ok(())
}
