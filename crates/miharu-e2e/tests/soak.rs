//! The short form of `make soak`: five minutes, or `MIHARU_SOAK_SECONDS`. A program of its own, which `make test` runs beside the
//! others on a host of its own (`scripts/alone.sh`).
#![allow(clippy::print_stdout, reason = "showing the series")]

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::soak::{self, Deadlines, Plan};
use miharu_e2e::{need, scratch};

#[test]
fn what_a_host_does_to_its_daemon_leaves_nothing_behind() -> Result<()> {
    need!(Lxc, Tls);
    // Its machines' monitors have room for one client, and it would see containers of others come and go.
    let _alone = scratch::alone()?;
    let seconds = std::env::var("MIHARU_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let mut plan = Plan::of(Duration::from_secs(seconds), 20, 3);
    // Whatever else runs here shall not make it late.
    plan.deadlines = Deadlines::Generous;
    let report = soak::run(&plan, |_| ())?;
    println!("{report}");
    assert!(report.is_well(), "{report}");
    for (what, count) in [
        ("scrapes", report.scrapes),
        ("containers", report.replaced),
        ("moves", report.moves),
        ("certificates", report.certificates),
    ] {
        assert!(count > 0, "no {what}\n{report}");
    }
    // Another program has taken a port that was free, or LXC failed once: that may happen, but not as a habit.
    let done = report.replaced + report.moves;
    assert!((report.troubles.len() as u64) <= done / 10, "of {done}: {:?}", report.troubles);
    Ok(())
}
