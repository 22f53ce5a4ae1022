//! LXD 5.0.2 and miharu on the same containers of two projects: every series of LXD is either ours, to the figure, or stands in
//! the table of differences with the line of metrics.md that explains it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use miharu_e2e::exposition::Sample;
use miharu_e2e::lxd::Lxd;
use miharu_e2e::{Exposition, Miharud, need};

/// A difference: what it concerns, how far it goes, and the line of metrics.md (or of its sources) that explains it.
struct Difference {
    family: &'static str,
    kind: Kind,
    why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// LXD's labels are others: found again by name, project and mount point.
    Labels,
    /// The figure is another one, or may be.
    Value,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        family: "lxd_filesystem_",
        kind: Kind::Labels,
        why: "Every instance sample carries `name`, `project` and `type`; `device` names the shared device. (LXD: no `type`, `device` empty.)",
    },
    Difference {
        family: "lxd_memory_MemTotal_bytes",
        kind: Kind::Value,
        why: "the smallest of the host's MemTotal and every `memory.max` up the tree. (LXD: kB times 1000.)",
    },
    Difference {
        family: "lxd_memory_MemFree_bytes",
        kind: Kind::Value,
        why: "MemTotal − memory.current, so it inherits LXD's MemTotal.",
    },
    Difference {
        family: "lxd_memory_MemAvailable_bytes",
        kind: Kind::Value,
        why: "the smallest, over the tree, of limit − usage + (Cached − Shmem + SReclaimable), and the host's own MemAvailable.",
    },
];

/// Families that LXD 5.0.2 has not, from the table of metrics.md and from "Families that the anchors lack".
const OURS: &[&str] = &[
    "lxd_boot_time_seconds",
    "lxd_cpu_effective_total",
    "lxd_time_seconds",
    "lxd_cpu_cfs_",
    "lxd_cpu_throttled_seconds_total",
    "lxd_cpu_limit_cores",
    "lxd_filesystem_files",
    "lxd_filesystem_shared",
    "lxd_memory_usage_bytes",
    "lxd_memory_peak_bytes",
    "lxd_memory_working_set_bytes",
    "lxd_memory_major_faults_total",
    "lxd_memory_OOM_kills_total",
    "lxd_pressure_",
    "lxd_instance_",
    "lxd_instances_running",
    "lxd_project_",
    "lxd_storage_pool_",
    "lxd_runtime_",
];

fn difference(family: &str) -> Option<&'static Difference> {
    DIFFERENCES.iter().find(|difference| family.starts_with(difference.family))
}

/// Reads what LXD serves, less strictly: its form is not ours to judge.
fn read(text: &str) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').context(line.to_owned())?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels: BTreeMap<_, _> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            })
            .collect();
        samples.push(Sample {
            name: name.to_owned(),
            labels,
            value: value.parse().context(line.to_owned())?,
        });
    }
    Ok(samples)
}

/// The same series in ours.
fn ours<'a>(exposition: &'a Exposition, theirs: &Sample) -> Vec<&'a Sample> {
    let labels: Vec<(&str, &str)> = match difference(&theirs.name) {
        Some(Difference { kind: Kind::Labels, .. }) => {
            ["name", "project", "mountpoint", "fstype"].map(|label| (label, theirs.label(label))).to_vec()
        }
        _ => theirs.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    };
    exposition.select(&theirs.name, &labels)
}

/// How far two readings some moments apart may differ.
fn tolerance(sample: &Sample) -> f64 {
    match sample.name.as_str() {
        name if name.contains("_cpu_") => 0.2,
        // The daemons themselves write to the same file system in between.
        name if name.contains("_filesystem_") => 64e6,
        name if name.contains("_memory_") => 262_144.0,
        name if name.contains("_network_") && name.contains("bytes") => 2000.0,
        name if name.contains("_network_") => 20.0,
        name if name.contains("_disk_") => 2e6,
        _ => 1.0,
    }
}

#[test]
fn every_series_of_lxd_is_ours_or_its_difference_is_explained() -> Result<()> {
    need!(Lxd, Tls);
    let mut lxd = Lxd::start()?;
    lxd.lxc(&["project", "create", "foo", "-c", "features.images=false", "-c", "features.profiles=false"])?;
    // The limit makes the kernel keep disk counters on cgroup v1.
    lxd.launch("default", "c1", &["--device", "root,limits.read=1GB", "--device", "root,limits.write=1GB"])?;
    lxd.launch("foo", "c2", &[])?;
    let write = "dd if=/dev/zero of=/var/data bs=64k count=64 conv=fsync; mount -t tmpfs none /tmp; dd if=/dev/zero of=/tmp/a bs=64k count=32";
    lxd.lxc(&["exec", "c1", "--", "/bin/sh", "-c", write])?;

    let daemon = Miharud::start()?;
    daemon.miharu(&["config", "set", "metrics.prefix", "lxd"])?;
    let theirs_text = lxd.lxc(&["query", "/1.0/metrics"])?;
    let mine = daemon.scrape()?;
    let theirs = read(&theirs_text)?;
    ensure!(theirs.len() > 60, "LXD served only {} series", theirs.len());

    let mut used = vec![false; DIFFERENCES.len()];
    let mut wrong = Vec::new();
    for sample in &theirs {
        let known = DIFFERENCES.iter().position(|difference| sample.name.starts_with(difference.family));
        let [one] = ours(&mine, sample)[..] else {
            wrong.push(format!("{} of ours for {sample:?}", ours(&mine, sample).len()));
            continue;
        };
        let is_apart = (one.value - sample.value).abs() > tolerance(sample);
        match known.map(|known| (known, DIFFERENCES[known].kind)) {
            Some((known, Kind::Value)) => used[known] |= is_apart,
            _ if is_apart => wrong.push(format!("theirs {}, ours {}: {sample:?}", sample.value, one.value)),
            Some((known, Kind::Labels)) => used[known] |= one.labels != sample.labels,
            None => {}
        }
    }
    // And the other way: what we serve of these containers beyond LXD is on the list of what we add.
    for sample in mine.samples().filter(|sample| matches!(sample.label("project"), "default" | "foo")) {
        let theirs_too = theirs.iter().any(|theirs| theirs.name == sample.name);
        if !theirs_too && !OURS.iter().any(|family| sample.name.starts_with(family)) {
            wrong.push(format!("LXD has no such family, and nobody says that we add it: {sample:?}"));
        }
        assert!(
            matches!(
                (sample.label("project"), sample.label("name")),
                ("default", "c1") | ("foo", "c2") | (_, "")
            ),
            "{sample:?}"
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{theirs_text}");
    for (difference, used) in DIFFERENCES.iter().zip(used) {
        assert!(
            used,
            "{} {:?} is no difference any more: {}",
            difference.family, difference.kind, difference.why
        );
    }
    for name in ["c1", "c2"] {
        let info = mine.select("lxd_instance_info", &[("name", name)]);
        assert_eq!(info.len(), 1, "{name}");
        assert_eq!(info[0].label("runtime"), "lxd");
    }
    Ok(())
}
