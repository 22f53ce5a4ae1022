//! The short form of `make soak`: a minute, or `MIHARU_SOAK_SECONDS`, of which CI has five minutes. A program of its own, so that no
//! other test is beside it.
#![allow(clippy::print_stdout, reason = "showing the series")]

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::soak::{self, Plan};
use miharu_e2e::{need, scratch};

#[test]
fn what_a_host_does_to_its_daemon_leaves_nothing_behind() -> Result<()> {
    need!(Lxc, Tls);
    // Its machines' monitors have room for one client, and it would see containers of others come and go.
    let _alone = scratch::alone()?;
    let seconds = std::env::var("MIHARU_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let report = soak::run(&Plan::of(Duration::from_secs(seconds), 20, 3), |_| ())?;
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
    assert!(report.troubles.is_empty(), "{:?}", report.troubles);
    Ok(())
}
