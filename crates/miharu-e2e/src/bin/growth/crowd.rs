//! The containers of a scenario, in one project or in several.

use anyhow::{Context, Result};
use miharu_e2e::cgroup::Cgroups;
use miharu_e2e::fleet::Fleet;
use miharu_e2e::interrupt;

/// The kernel gives out 4,096 terminals, `kernel.pty.max`, and containers get only three quarters of them.
const NO_CONSOLE: &str = "lxc.console.path = none";

/// Running containers, killed on drop. Those of one LXCPATH are one project.
#[derive(Debug)]
pub(crate) struct Crowd {
    fleets: Vec<Fleet>,
}

impl Crowd {
    /// No containers yet, to be spread over so many projects.
    ///
    /// # Errors
    /// When the folders cannot be made.
    pub(crate) fn new(projects: usize) -> Result<Self> {
        let mut fleets = (0..projects).map(|_| Fleet::new()).collect::<Result<Vec<_>>>()?;
        for fleet in &mut fleets {
            fleet.lines = vec![NO_CONSOLE.into()];
        }
        Ok(Self { fleets })
    }

    /// Starts more until there are so many, the same number in each project.
    ///
    /// # Errors
    /// When LXC cannot.
    pub(crate) fn grow(&mut self, count: usize) -> Result<()> {
        let each = u32::try_from(count.div_ceil(self.fleets.len().max(1)))?;
        for fleet in &mut self.fleets {
            fleet.grow(each)?;
        }
        interrupt::check()
    }

    /// Starts one more, with these lines in its configuration.
    ///
    /// # Errors
    /// When LXC cannot.
    pub(crate) fn add(&mut self, lines: &[String]) -> Result<Member> {
        let fleet = self.fleets.first_mut().context("no project")?;
        let usual = fleet.lines.clone();
        fleet.lines.extend_from_slice(lines);
        let number = u32::try_from(fleet.inits.len())? + 1;
        let grown = fleet.grow(number);
        fleet.lines = usual;
        grown?;
        let pid = *fleet.inits.last().context("no container")?;
        Ok(Member { name: format!("b{number}"), pid })
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.fleets.iter().map(|fleet| fleet.inits.len()).sum()
    }

    /// Their inits.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.fleets.iter().flat_map(|fleet| fleet.inits.iter().copied())
    }

    /// The projects, as miharu calls them.
    pub(crate) fn projects(&self) -> Vec<String> {
        self.fleets.iter().map(|fleet| format!("lxc:{}", fleet.path.display())).collect()
    }

    /// The cgroup of the first one, as its path in every hierarchy.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn first_cgroup(&self) -> Result<String> {
        let pid = *self.fleets.first().and_then(|fleet| fleet.inits.first()).context("no container")?;
        Ok(Cgroups::of(pid)?.path("memory")?.to_owned())
    }
}

/// A container that is not as the others.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its init.
    pub(crate) pid: u32,
}
