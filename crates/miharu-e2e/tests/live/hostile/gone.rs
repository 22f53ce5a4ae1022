//! NFS whose server is gone: in the guest, whose kernel has both ends of it.

use std::path::Path;

use anyhow::Result;
use miharu_e2e::nfs::Nfs;
use miharu_e2e::{guest, need};

use super::filesystems::{Remote, held, mounted_in_a_container, said_by_a_monitor};

impl Remote for Nfs {
    fn path(&self) -> &Path {
        &self.path
    }

    fn fall_silent(&self) -> Result<()> {
        self.end()
    }

    fn answer(&self) -> Result<()> {
        self.serve()
    }

    fn asked(&self) -> Result<u64> {
        Nfs::asked(self)
    }

    fn holds(&self, pid: u32) -> bool {
        held(pid) > 0
    }

    // Its client waits in a way that SIGKILL ends, since Linux 2.6.25.
    const OUTLIVES: bool = false;
}

/// Whether this is no guest of the tests, having said so. That both tests run in the guest is held by what starts it.
fn is_elsewhere() -> bool {
    let is_elsewhere = !guest::is_here();
    if is_elsewhere {
        println!("skipped, left to cgroup2_guest: only the guest's kernel has both ends of NFS");
    }
    is_elsewhere
}

#[test]
fn in_a_container_it_costs_its_own_alone_and_holds_no_port() -> Result<()> {
    need!(Lxc);
    if is_elsewhere() {
        return Ok(());
    }
    mounted_in_a_container(&Nfs::mount()?)
}

#[test]
fn under_the_state_of_a_runtime_it_costs_nobody_else_anything() -> Result<()> {
    need!(Lxc);
    if is_elsewhere() {
        return Ok(());
    }
    said_by_a_monitor(&Nfs::mount()?)
}
