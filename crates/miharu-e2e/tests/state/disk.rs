//! The disk below the state: full, nearly full, gone read-only. A real file system on a loop device.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::miharud::Reply;
use miharu_e2e::{Miharud, need, scratch, shell};
use serde_json::json;

use crate::{MAY_PASS, gives_up, is_chaos};

/// A file system of a few megabytes.
struct Disk {
    point: PathBuf,
    device: LoopDevice,
}

impl Disk {
    fn new() -> Result<Self> {
        let disk = Self { device: LoopDevice::create(4 << 20, None)?, point: scratch::dir("disk")? };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        let args = ["-o", "errors=remount-ro", &self.device.device].map(AsRef::as_ref);
        shell::run("mount", [&args[..], &[self.point.as_os_str()]].concat()).map(drop)
    }

    fn unmount(&self) -> Result<()> {
        shell::run("umount", [&self.point]).map(drop)
    }

    /// Takes all room but so many blocks of 1 KiB.
    fn fill(&self, left: usize) -> Result<PathBuf> {
        let spares: Vec<PathBuf> =
            (0..left).map(|number| self.point.join(format!("spare{number}"))).collect();
        for spare in &spares {
            fs::write(spare, [1; 1024])?;
            fs::File::open(spare)?.sync_all()?;
        }
        let path = self.point.join("filler");
        let mut file = fs::File::create(&path)?;
        for size in [64 << 10, 1024] {
            while file.write_all(&vec![1; size]).and_then(|()| file.sync_data()).is_ok() {}
        }
        for spare in spares {
            fs::remove_file(spare)?;
        }
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}

fn set(daemon: &Miharud, number: usize) -> Result<Reply> {
    // Long enough to want further pages.
    let text = format!("{number}-").repeat(600);
    let config = json!({ "config": { "user.a": number.to_string(), "user.b": number.to_string(), "user.text": text } });
    daemon.ask("PATCH", "/1.0", &[], &config.to_string())
}

/// The number that was set last; both keys have to say the same.
fn number(daemon: &Miharud) -> Result<usize> {
    let config = daemon.get("/1.0")?.json()?["metadata"]["config"].take();
    ensure!(config["user.a"] == config["user.b"], "half of a change: {config}");
    Ok(config["user.a"].as_str().context("no number")?.parse()?)
}

#[test]
fn a_full_disk_refuses_changes_and_serves_on() -> Result<()> {
    need!(Containers);
    let disk = Disk::new()?;
    let daemon = Miharud::in_dir(&disk.point, &[])?;
    ensure!(set(&daemon, 1)?.status == 200);
    let filler = disk.fill(0)?;
    let reply = set(&daemon, 2)?;
    ensure!(reply.status == 500, "{}: {}", reply.status, reply.text());
    for words in ["miharu.db: ", "disk is full", "Nothing was changed", "make room"] {
        ensure!(reply.text().contains(words), "'{words}' is not in {}", reply.text());
    }
    assert_eq!(number(&daemon)?, 1);
    daemon.scrape()?;
    drop(daemon);
    // It starts on a full disk, too, and says what it cannot do there until it can.
    let daemon = Miharud::in_dir(&disk.point, &[])?;
    assert_eq!(number(&daemon)?, 1);
    daemon.scrape()?;
    let warned = |what: &str| -> Result<bool> {
        let list = daemon.miharu(&["warning", "list", "--format=json"])?;
        Ok(list.contains("miharu.db.backup cannot be written") && list.contains(what))
    };
    shell::wait_for("the warning", Duration::from_secs(20), || {
        warned("make room on the file system").unwrap_or_default().then_some(())
    })?;
    fs::remove_file(filler)?;
    ensure!(set(&daemon, 3)?.status == 200);
    assert_eq!(number(&daemon)?, 3);
    shell::wait_for("the end of the warning", Duration::from_secs(20), || {
        (!warned("").unwrap_or(true)).then_some(())
    })?;
    daemon.stop()
}

#[test]
fn a_disk_with_little_room_takes_a_change_whole_or_not_at_all() -> Result<()> {
    need!(Containers);
    let disk = Disk::new()?;
    let mut daemon = Miharud::in_dir(&disk.point, &[])?;
    ensure!(set(&daemon, 1)?.status == 200);
    let (mut last, mut refused) = (1, 0);
    let step = if is_chaos() { 1 } else { 12 };
    for left in (0..110).step_by(step) {
        let filler = disk.fill(left).with_context(|| format!("{left} blocks left"))?;
        for number_to_set in [left * 2 + 2, left * 2 + 3] {
            match set(&daemon, number_to_set)?.status {
                200 => last = number_to_set,
                500 => refused += 1,
                other => anyhow::bail!("{other}"),
            }
            assert_eq!(number(&daemon)?, last, "{left} blocks left");
        }
        if left % 24 == 0 {
            drop(daemon);
            daemon = Miharud::in_dir(&disk.point, &[]).with_context(|| format!("{left} blocks left"))?;
            assert_eq!(number(&daemon)?, last, "{left} blocks left, after SIGKILL");
        }
        fs::remove_file(filler)?;
    }
    println!("refused {refused}, made up to {last}");
    ensure!(refused > 0 && last > 1, "refused {refused}, made up to {last}");
    Ok(())
}

#[test]
fn a_disk_that_goes_read_only_refuses_changes_and_serves_on() -> Result<()> {
    need!(Containers);
    let disk = Disk::new()?;
    // The kernel takes a write for an error of the disk: what errors=remount-ro is for.
    let trigger = format!("/sys/fs/ext4/loop{}/trigger_fs_error", disk.device.minor());
    let daemon = Miharud::in_dir(&disk.point, &[])?;
    ensure!(set(&daemon, 1)?.status == 200);
    fs::write(&trigger, "tested").with_context(|| trigger.clone())?;
    let reply = set(&daemon, 2)?;
    ensure!(reply.status == 500, "{}: {}", reply.status, reply.text());
    ensure!(reply.text().contains("miharu.db: "), "{}", reply.text());
    ensure!(reply.text().contains("read-write") || reply.text().contains("kernel's log"), "{}", reply.text());
    assert_eq!(number(&daemon)?, 1);
    daemon.scrape()?;
    drop(daemon);
    let said = gives_up(Command::new("env"), &disk.point, MAY_PASS)?;
    ensure!(said.contains("read-only") && said.contains("mount it read-write"), "{said}");

    disk.unmount()?;
    // 1: errors were corrected.
    let checked = Command::new("e2fsck").args(["-p", "-f", &disk.device.device]).output()?;
    ensure!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    disk.mount()?;
    let daemon = Miharud::in_dir(&disk.point, &[])?;
    assert_eq!(number(&daemon)?, 1);
    ensure!(set(&daemon, 3)?.status == 200);
    daemon.stop()
}
