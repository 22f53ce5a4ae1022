//! Containers that come and go.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use crate::fleet::Fleet;
use crate::shell;

/// As many as wanted at any time, the oldest at the front.
#[derive(Debug)]
pub(super) struct Coming {
    fleet: Fleet,
    running: VecDeque<u32>,
    /// The largest number that was given out.
    last: u32,
}

impl Coming {
    /// Starts all of them.
    pub(super) fn new(count: usize) -> Result<Self> {
        let mut fleet = Fleet::new()?;
        // The kernel gives out a limited number of terminals.
        fleet.lines = vec!["lxc.console.path = none".into()];
        let last = u32::try_from(count)?;
        fleet.grow(last)?;
        Ok(Self { fleet, running: (1..=last).collect(), last })
    }

    /// Ends the oldest and starts another: every second time under the same name, else under one that nobody has had yet.
    pub(super) fn replace(&mut self) -> Result<()> {
        let oldest = self.running.pop_front().context("no container")?;
        let path = self.fleet.path.clone();
        let name = format!("b{oldest}");
        shell::run(
            "lxc-stop",
            ["-P".as_ref(), path.as_os_str(), "-n".as_ref(), name.as_ref(), "-k".as_ref()],
        )?;
        let next = if oldest.is_multiple_of(2) {
            oldest
        } else {
            // Odd again, so that names go on to come back and to be new in equal numbers.
            self.last += if self.last.is_multiple_of(2) { 1 } else { 2 };
            std::fs::remove_dir_all(path.join(&name))?;
            self.last
        };
        self.fleet.start(next)?;
        self.running.push_back(next);
        Ok(())
    }
}
