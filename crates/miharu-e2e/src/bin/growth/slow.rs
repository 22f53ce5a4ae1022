//! A slow file system below one container, and a slow disk below another's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::fuse::Slow;
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::{Exposition, shell};

use crate::book::Book;
use crate::crowd::Crowd;
use crate::subject::Subject;

/// How long an answer takes, and what to call that.
const DELAYS: [(Option<u64>, &str); 5] = [
    (Some(0), "answers at once"),
    (Some(100), "takes 100 ms"),
    (Some(200), "takes 200 ms"),
    (Some(300), "takes 300 ms"),
    (None, "never answers"),
];

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(1)?;
    crowd.grow(book.scaled(100).max(20))?;
    let mut subject = Subject::start()?;
    book.note("no slow file system", subject.measure()?)?;
    match disk(&mut crowd) {
        Ok(_disk) => {
            let figures = subject.measure()?;
            book.note("a disk of 10 reads and 10 writes a second, under load, below one", figures)?;
        }
        Err(error) => book.say(&format!("no slow disk: {error:#}")),
    }
    let slow = Slow::mount()?;
    let name = crowd.add(&[format!("lxc.mount.entry = {} mnt none bind 0 0", slow.path.display())])?.name;
    // lxc-start has asked, too.
    let asked = slow.asked();
    let mut figures = subject.measure()?;
    figures.notes.insert("asked".into(), f64::from(u32::try_from(slow.asked() - asked)?));
    book.note("a FUSE file system in one, not asked (the default)", figures)?;
    for (delay, what) in DELAYS {
        slow.set_delay(delay.map(Duration::from_millis));
        let mut subject = Subject::start()?;
        let _released_before_the_daemon_ends = slow.releaser();
        subject.set("metrics.remote_filesystems", "true")?;
        let (first, seen) = first_scrape(&mut subject, &name)?;
        let asked = slow.asked();
        let mut figures = subject.measure()?;
        figures.notes.insert("first_scrape_wall_us".into(), first.as_secs_f64() * 1e6);
        figures.notes.insert("its_size_in_the_first_scrape".into(), f64::from(u8::from(seen)));
        figures.notes.insert("asked".into(), f64::from(u32::try_from(slow.asked() - asked)?));
        book.note(&format!("a FUSE file system in one that {what}"), figures)?;
    }
    Ok(())
}

/// The first scrape's length, and whether the slow file system's size was in it.
fn first_scrape(subject: &mut Subject, name: &str) -> Result<(Duration, bool)> {
    let started = Instant::now();
    let body = subject.scrape()?;
    let length = started.elapsed();
    let exposition = Exposition::parse(&String::from_utf8(body)?)?;
    let labels = [("name", name), ("mountpoint", "/mnt")];
    Ok((length, !exposition.select("incus_filesystem_size_bytes", &labels).is_empty()))
}

/// A slow disk, and what writes to it.
struct Disk {
    device: LoopDevice,
    number: String,
}

/// Starts one more container, with an ext4 of its own on a disk that the kernel throttles, and lets it write there.
fn disk(crowd: &mut Crowd) -> Result<Disk> {
    let device = LoopDevice::create(64 << 20, None)?;
    let number = format!("7:{}", device.minor());
    let pid = crowd.add(&[format!("lxc.mount.entry = {} mnt ext4 defaults 0 0", device.device)])?.pid;
    let disk = Disk { device, number };
    disk.throttle(10)?;
    // The writer ends with the container; it waits for the disk nearly all of the time.
    let line = "(while :; do dd if=/dev/zero of=/mnt/x bs=4k count=64 conv=fsync; done) >/dev/null 2>&1 &";
    let enter = ["-t", &pid.to_string(), "-m", "-p", "--", "/bin/sh", "-c", line];
    let mut writer = std::process::Command::new("nsenter");
    writer.args(enter).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    shell::output(&mut writer).with_context(|| format!("a writer to {}", disk.device.device))?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(disk)
}

impl Disk {
    /// So many reads and writes a second, for all that are in the root cgroup; 0 for as many as there are.
    fn throttle(&self, each_second: u32) -> Result<()> {
        for what in ["read", "write"] {
            let file = format!("/sys/fs/cgroup/blkio/blkio.throttle.{what}_iops_device");
            std::fs::write(&file, format!("{} {each_second}", self.number)).context(file)?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.throttle(0);
    }
}
