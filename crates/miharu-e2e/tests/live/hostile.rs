//! A container whose root wants to forge or break the exposition, or to cost others theirs.

mod devices;
mod filesystems;
mod gone;
mod many;
mod names;
mod stacked;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::{Exposition, Lxc, Miharud, measure, need, shell};

/// The collection's deadline is 4 s; a busy machine needs some time besides.
const LIMIT: Duration = Duration::from_secs(6);

/// What a daemon may grow by on account of one hostile container, bytes.
const GROWTH: u64 = 64 << 20;

/// A daemon, and a container that does nothing, of which nothing may be lost.
struct Scene {
    daemon: Miharud,
    witness: Lxc,
    series: BTreeSet<String>,
    resident: u64,
}

impl Scene {
    fn start() -> Result<Self> {
        let (daemon, witness) = (Miharud::start()?, Lxc::start(&[])?);
        // The first reading opens the files that are kept.
        daemon.scrape()?;
        let series = series(&daemon.scrape()?, &witness.name);
        ensure!(series.len() > 20, "{series:?}");
        let resident = measure::memory(daemon.pid(), "VmRSS")?;
        Ok(Self { daemon, witness, series, resident })
    }

    /// Scrapes: in time, with all of the witness' series, and within the memory that there is for one hostile container.
    fn look(&self) -> Result<Exposition> {
        let started = Instant::now();
        let scrape = self.daemon.scrape()?;
        let took = started.elapsed();
        ensure!(took < shell::patient(LIMIT), "a scrape took {took:?}");
        let missing: Vec<_> = self.series.difference(&series(&scrape, &self.witness.name)).cloned().collect();
        ensure!(missing.is_empty(), "the witness lost {missing:?}");
        let success = [("name", self.witness.name.as_str())];
        ensure!(scrape.value("incus_instance_scrape_success", &success)? == 1.0, "the witness has failed");
        let grown = measure::memory(self.daemon.pid(), "VmRSS")?.saturating_sub(self.resident);
        println!("a scrape in {took:?}, {} KiB more resident memory", grown >> 10);
        ensure!(grown < GROWTH, "miharud grew by {grown} bytes");
        Ok(scrape)
    }

    /// Some scrapes, the last of which is given.
    fn watch(&self) -> Result<Exposition> {
        self.look()?;
        self.look()?;
        self.look()
    }

    /// Whether a warning has all of these words.
    fn is_warned(&self, words: &[&str]) -> Result<bool> {
        let all = self.daemon.get("/1.0/warnings?recursion=1")?.json()?;
        let all = all["metadata"].as_array().context("a list")?.clone();
        Ok(all.iter().any(|warning| {
            let text = warning["last_message"].as_str().unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        }))
    }

    fn expect_warning(&self, words: &[&str]) -> Result<()> {
        let all = || self.daemon.get("/1.0/warnings?recursion=1").map(|reply| reply.text());
        ensure!(self.is_warned(words)?, "no warning of {words:?} in {}", all()?);
        Ok(())
    }
}

/// All series of an instance, without their values.
fn series(scrape: &Exposition, name: &str) -> BTreeSet<String> {
    let own = scrape.samples().filter(|sample| sample.label("name") == name);
    own.map(|sample| format!("{} {:?}", sample.name, sample.labels)).collect()
}

/// The name that broke LXD's whole scrape.
const INTERFACE: &str = "x\",name=\"other";
/// Inside: a quote, a backslash, a newline with something that looks like a series behind it, a blank.
const MOUNT: &str = "/mnt/a\"b\\c\nincus_procs_total{name=\"forged\"} 1 d";

#[test]
fn names_with_quotes_backslashes_and_newlines_forge_nothing() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let neighbour = Lxc::start(&[])?;
    let lxc = Lxc::start(&[])?;
    let disk = LoopDevice::create(16 << 20, None)?;
    shell::run(
        "nsenter",
        ["-t", &lxc.pid.to_string(), "-n", "ip", "link", "add", INTERFACE, "type", "bridge"],
    )?;
    let quoted = MOUNT.replace('\'', "'\\''");
    lxc.exec(&format!(
        "mknod /dev/own b 7 {}; mkdir -p '{quoted}'; mount -t ext4 /dev/own '{quoted}'",
        disk.minor()
    ))?;

    // The strict parser refuses forged and broken lines; here is what it must have read.
    let scrape = daemon.scrape()?;
    let name = ("name", lxc.name.as_str());
    scrape.value("incus_network_receive_bytes_total", &[name, ("device", INTERFACE)])?;
    scrape.value("incus_filesystem_size_bytes", &[name, ("mountpoint", MOUNT)])?;
    let instances = scrape.instances();
    assert!(!instances.contains("other") && !instances.contains("forged"), "{instances:?}");
    assert!(instances.contains(&neighbour.name));
    assert_eq!(scrape.value("incus_instance_scrape_success", &[("name", &neighbour.name)])?, 1.0);
    Ok(())
}
