//! A container of any runtime as these tests look at it, and a load whose size is known without miharu.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::cgroup::Cgroups;
use miharu_e2e::lxc::block_device;
use miharu_e2e::netns::Netns;
use miharu_e2e::oci::Container;
use miharu_e2e::{Exposition, Miharud, inside, scratch, shell};

/// What every container of these tests writes to and reads from its disk.
const BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// What every container holds, and by how much the kernel may be late in counting it for a process: it does so for many pages
/// at once.
const HELD: f64 = 16e6;
const UNCOUNTED: f64 = 0.5e6;

/// An instance, and what miharu has to call it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) runtime: &'static str,
    pub(crate) project: String,
    pub(crate) name: String,
    /// What its runtime calls it, where the runtime has a word of its own.
    pub(crate) id: Option<String>,
    /// Its init, as the host numbers it.
    pub(crate) pid: u32,
}

impl Subject {
    pub(crate) fn new(runtime: &'static str, project: &str, name: &str, pid: u32) -> Self {
        Self { runtime, project: project.to_owned(), name: name.to_owned(), id: None, pid }
    }

    pub(crate) fn of(runtime: &'static str, project: &str, container: &Container) -> Self {
        let id = Some(container.id.clone());
        Self { id, ..Self::new(runtime, project, &container.name, container.pid) }
    }

    /// A container of containerd, whose ids repeat from namespace to namespace.
    pub(crate) fn in_namespace(namespace: &str, container: &Container) -> Self {
        let id = Some(format!("{namespace}/{}", container.id));
        Self { id, ..Self::of("containerd", &format!("containerd/{namespace}"), container) }
    }

    pub(crate) fn labels(&self) -> [(&str, &str); 2] {
        [("name", &self.name), ("project", &self.project)]
    }

    /// Asserts that it is served, once, under its name and with nothing missing that all containers have.
    pub(crate) fn assert_served(&self, scrape: &Exposition) {
        let info = scrape.select("incus_instance_info", &self.labels());
        assert_eq!(info.len(), 1, "{self:?} is served once: {:?}", served(scrape));
        assert_eq!(info[0].label("runtime"), self.runtime, "{self:?}");
        if let Some(id) = &self.id {
            assert_eq!(info[0].label("id"), id, "{self:?}");
        }
        let value = |family: &str| scrape.value(family, &self.labels());
        assert_eq!(value("incus_instance_scrape_success").unwrap(), 1.0, "{self:?}");
        for family in ["memory_MemTotal_bytes", "memory_MemFree_bytes", "memory_Cached_bytes"] {
            assert!(value(&format!("incus_{family}")).is_ok(), "{self:?} lacks {family}");
        }
        // libvirt makes no cgroup of that controller on version 1, so that nobody counts its tasks.
        let counts_tasks = Cgroups::of(self.pid).unwrap().path("pids").is_ok_and(|path| path != "/");
        if counts_tasks || self.runtime == "qemu" {
            assert!(value("incus_procs_total").unwrap() >= 1.0, "{self:?}");
        }
    }

    /// Gives it an interface `mh0`, the `number`th of the namespace, and makes its disk traffic count.
    pub(crate) fn prepare(&self, netns: &Netns, number: u32) -> Result<()> {
        let (inner, outer) = addresses(number);
        inside::connect(self.pid, netns, &format!("mho{number}"), "mh0", (&inner, &outer))?;
        inside::count_disk(self.pid, scratch::run_dir()?)?;
        // tail keeps the last 16 MB of its input until that ends, which it never does.
        inside::run(
            self.pid,
            "(head -c 16000000 /dev/zero; sleep 1000) </dev/null 2>/dev/null | tail -c 16000000 >/dev/null 2>&1 &",
        )?;
        shell::wait_for("the held memory", Duration::from_secs(20), || {
            self.resident().ok().filter(|held| *held >= HELD - UNCOUNTED)
        })?;
        Ok(())
    }

    /// Burns, writes, reads and sends what is known, and tells what that cost by the clocks of the processes themselves.
    pub(crate) fn load(&self, netns: &Netns, number: u32) -> Result<f64> {
        let burn = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done";
        let disk = "dd if=/dev/zero of=/var/data bs=64k count=128 conv=fsync 2>/dev/null; \
                    dd if=/var/data of=/dev/null bs=64k iflag=direct 2>/dev/null";
        let line = format!("busybox time -f '%U %S' /bin/sh -c '{burn}; {disk}' 2>&1");
        let times = inside::run(self.pid, &line)?;
        let spent = times.split_whitespace().map(str::parse::<f64>).sum::<Result<f64, _>>().context(times)?;
        let (inner, _) = addresses(number);
        let ping = ["ping", "-q", "-c", "10", "-i", "0.02", "-s", "1000", &inner];
        shell::output(netns.command("busybox").args(ping))?;
        Ok(spent)
    }

    /// Asserts that two scrapes show the load between them, no more and no less.
    pub(crate) fn assert_load(&self, before: &Exposition, after: &Exposition, spent: f64) -> Result<()> {
        let (disk, _) =
            block_device(scratch::run_dir()?).context("the scratch folder is on no block device")?;
        let grown = |family: &str, device: Option<&str>| -> Result<f64> {
            let mut labels = self.labels().to_vec();
            labels.extend(device.map(|device| ("device", device)));
            let old = before.sum(family, &labels).unwrap_or(0.0);
            Ok(after.sum(family, &labels)? - old)
        };
        let cpu = grown("incus_cpu_seconds_total", None)?;
        // Clocks of processes are cut to hundredths; the shells and tools around the load come on top.
        assert!((spent - 0.04..spent * 1.1 + 0.25).contains(&cpu), "{self:?}: {cpu} s, spent were {spent} s");
        let written = grown("incus_disk_written_bytes_total", Some(&disk))?;
        assert!((BYTES..1.6 * BYTES).contains(&written), "{self:?}: {written} bytes written of {BYTES}");
        let read = grown("incus_disk_read_bytes_total", Some(&disk))?;
        assert!((BYTES..1.6 * BYTES).contains(&read), "{self:?}: {read} bytes read of {BYTES}");
        for way in ["receive", "transmit"] {
            // Each echo is 1000 bytes and the headers of ICMP, IP and Ethernet; ARP and IPv6's own chatter come on top.
            let packets = grown(&format!("incus_network_{way}_packets_total"), Some("mh0"))?;
            assert!((10.0..40.0).contains(&packets), "{self:?} {way}: {packets} packets");
            let bytes = grown(&format!("incus_network_{way}_bytes_total"), Some("mh0"))?;
            assert!((10_420.0..14_000.0).contains(&bytes), "{self:?} {way}: {bytes} bytes");
        }
        let (told, held) = (after.value("incus_memory_RSS_bytes", &self.labels())?, self.resident()?);
        assert!(
            told >= HELD - UNCOUNTED && (told - held).abs() < 3e6,
            "{self:?}: {told} bytes, its processes hold {held}"
        );
        Ok(())
    }

    /// The anonymous memory of its processes, by `/proc/PID/status`: a source that is no cgroup.
    fn resident(&self) -> Result<f64> {
        let procs = Cgroups::of(self.pid)?.read("memory", "cgroup.procs", "cgroup.procs")?;
        let of = |pid: &str| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        Ok(procs.lines().filter_map(of).sum::<f64>() * 1024.0)
    }
}

fn addresses(number: u32) -> (String, String) {
    (format!("10.78.{number}.2"), format!("10.78.{number}.1"))
}

/// A scrape with all of these in it. A container is normally in the first one after its start; on a busy machine its runtime
/// may be asked for its name for longer than that one waits.
pub(crate) fn scrape_with<'n>(
    daemon: &Miharud,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<Exposition> {
    let names: Vec<&str> = names.into_iter().collect();
    daemon.scrape_until("all containers' names", Duration::from_secs(5), |scrape| {
        let found = scrape.instances();
        names.iter().all(|name| found.contains(*name))
    })
}

/// Every instance that a scrape serves: runtime, project, name.
pub(crate) fn served(scrape: &Exposition) -> BTreeSet<(String, String, String)> {
    let infos = scrape.select("incus_instance_info", &[]);
    let of = |name: &str, sample: &miharu_e2e::exposition::Sample| sample.label(name).to_owned();
    infos.iter().map(|info| (of("runtime", info), of("project", info), of("name", info))).collect()
}
