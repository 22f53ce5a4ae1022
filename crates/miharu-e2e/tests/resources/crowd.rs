//! Thousands of instances that appear at once, and vanish at once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use miharu_e2e::{measure, scratch, shell};

use crate::{LIMIT, answered, daemon_of, is_chaos, succeeded, tree};

/// Moves the cgroups of all containers, one rename each, as fast as the kernel does it.
fn move_all(from: &Path, to: &Path) -> Result<Duration> {
    let started = Instant::now();
    for entry in fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("lxc.payload.") {
            fs::rename(entry.path(), to.join(name))?;
        }
    }
    Ok(started.elapsed())
}

#[test]
fn thousands_that_appear_at_once_and_vanish_at_once_are_served_and_forgotten() -> Result<()> {
    let _turn = scratch::turn("large trees")?;
    let count = if is_chaos() { 10_000 } else { 1000 };
    let tree = tree(count)?;
    let (cgroups, away) = (tree.join("sys/fs/cgroup"), tree.join("away"));
    fs::create_dir(&away)?;
    move_all(&cgroups, &away)?;
    let daemon = daemon_of(&tree)?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "1"])?;
    assert!(daemon.scrape()?.instances().is_empty());
    let resident = || measure::memory(daemon.pid(), "RssAnon");
    let (before, files) = (resident()?, measure::open_files(daemon.pid())?);
    let mut after = Vec::new();
    for round in 0..3 {
        let moved = move_all(&away, &cgroups)?;
        let started = Instant::now();
        // The very first answer is there in time, even if not everybody is in it yet.
        let first = answered(&daemon)?;
        let took = started.elapsed();
        assert_eq!(first.status, 200, "{}", first.text());
        let all = daemon
            .scrape_until("all of them", Duration::from_secs(90), |scrape| succeeded(scrape) == count)?;
        assert_eq!(all.instances().len(), count);
        let (complete, full) = (started.elapsed(), resident()?);
        move_all(&cgroups, &away)?;
        let started = Instant::now();
        daemon.scrape_until("nobody", Duration::from_secs(30), |scrape| scrape.instances().is_empty())?;
        let gone = started.elapsed();
        assert!(gone < shell::patient(LIMIT), "{gone:?}");
        after.push(resident()?);
        println!(
            "round {round}: {count} came within {moved:?}; first answer after {took:?}, all after {complete:?}, none after {gone:?}; \
             RssAnon {} kB, then {} kB, then {} kB; {} descriptors",
            before >> 10,
            full >> 10,
            after[round] >> 10,
            measure::open_files(daemon.pid())?
        );
    }
    // What was needed once may stay, but the second and third time need nothing more.
    assert!(after[2] < after[0] + after[0] / 4 + (2 << 20), "{after:?}");
    assert!(measure::open_files(daemon.pid())? <= files + 8);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    Ok(())
}
