//! What ZFS counts of each dataset: `/proc/spl/kstat/zfs/POOL/objset-0x…`, since OpenZFS 0.8.
//!
//! ZFS reads and writes in threads of its own, so no cgroup counts what an instance does on it. These files count what each
//! mounted dataset was asked for (`module/zfs/dataset_kstats.c` of OpenZFS); a file is called by a number that does not tell
//! its dataset, so where each dataset's is gets remembered.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::read::{Buffer, fields, lines, number};
use crate::roots::Roots;

/// The longest name that ZFS gives a dataset (`ZFS_MAX_DATASET_NAME_LEN`).
const MAX_NAME: usize = 256;

/// The most datasets that are reported for one root.
const MAX_DATASETS: usize = 64;

/// The most files whose dataset is looked up at one time. The newest are looked up first, the others follow.
const MAX_NEW: usize = 1024;

/// The most files of one pool that are remembered.
const MAX_FILES: usize = 100_000;

/// How often a pool's files are listed where a dataset is not found among them.
const PAUSE: Duration = Duration::from_secs(10);

/// How often they are listed in any case, for datasets that were made below others.
const AGAIN: Duration = Duration::from_secs(60);

/// The counters of one dataset since it was mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Its name, the pool's first.
    pub name: String,
    /// Reads.
    pub reads: Option<u64>,
    /// Bytes read, from disk or cache.
    pub nread: Option<u64>,
    /// Writes.
    pub writes: Option<u64>,
    /// Bytes written.
    pub nwritten: Option<u64>,
}

/// Parses one file; nothing where it names no dataset.
#[must_use]
pub fn parse(text: &[u8]) -> Option<Dataset> {
    let mut dataset = Dataset::default();
    // Each line has a name, a number for the type, and a value; a dataset's name may have blanks in it.
    for line in lines(text) {
        let mut parts = fields(line);
        let (Some(key), Some(_type)) = (parts.next(), parts.next()) else { continue };
        let counter = |value: Option<&[u8]>| value.and_then(number);
        match key {
            b"dataset_name" => dataset.name = name(line)?,
            b"reads" => dataset.reads = counter(parts.next()),
            b"nread" => dataset.nread = counter(parts.next()),
            b"writes" => dataset.writes = counter(parts.next()),
            b"nwritten" => dataset.nwritten = counter(parts.next()),
            _ => {}
        }
    }
    (!dataset.name.is_empty()).then_some(dataset)
}

/// What stands in a line after its key and its type.
fn name(line: &[u8]) -> Option<String> {
    let after_key = line.get(line.iter().position(|byte| *byte == b' ')?..)?.trim_ascii_start();
    let after_type = after_key.get(after_key.iter().position(|byte| *byte == b' ')?..)?;
    let name = std::str::from_utf8(after_type.trim_ascii()).ok()?;
    (name.len() <= MAX_NAME).then(|| name.to_owned())
}

/// The files of all pools, remembered from one collection to the next.
#[derive(Debug)]
pub struct Datasets {
    directory: PathBuf,
    pools: BTreeMap<String, Pool>,
}

/// The files of one pool.
#[derive(Debug, Default)]
struct Pool {
    /// The file of each dataset.
    files: BTreeMap<String, OsString>,
    /// Files whose dataset is known, or that have none.
    seen: HashSet<OsString>,
    listed: Option<Instant>,
}

impl Datasets {
    /// Of the host behind `roots`.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { directory: directory(roots), pools: BTreeMap::new() }
    }

    /// The counters of the dataset `root`, which is first where it is there, and of those below it.
    pub fn below(&mut self, root: &str, now: Instant, buffer: &mut Buffer) -> Vec<Dataset> {
        let Some(pool_name) = root.split('/').next().filter(|name| is_name(name)) else { return Vec::new() };
        let directory = self.directory.join(pool_name);
        let pool = self.pools.entry(pool_name.to_owned()).or_default();
        if pool.is_due(AGAIN, now) {
            pool.list(&directory, now, buffer);
        }
        let mut found = pool.read(&directory, root, buffer);
        if found.first().is_none_or(|first| first.name != root) && pool.is_due(PAUSE, now) {
            pool.list(&directory, now, buffer);
            found = pool.read(&directory, root, buffer);
        }
        found
    }

    /// Forgets all pools but these.
    pub fn retain(&mut self, is_used: impl Fn(&str) -> bool) {
        self.pools.retain(|name, _| is_used(name));
    }
}

/// Whether the host has ZFS at all.
#[must_use]
pub fn is_there(roots: &Roots) -> bool {
    directory(roots).exists()
}

fn directory(roots: &Roots) -> PathBuf {
    roots.proc.join("spl/kstat/zfs")
}

fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && part.len() <= MAX_NAME
}

impl Pool {
    fn is_due(&self, pause: Duration, now: Instant) -> bool {
        self.listed.is_none_or(|listed| now.saturating_duration_since(listed) >= pause)
    }

    /// Looks which files there are, and which datasets those that are new belong to.
    fn list(&mut self, directory: &Path, now: Instant, buffer: &mut Buffer) {
        self.listed = Some(now);
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        let names = entries.flatten().map(|entry| entry.file_name()).take(MAX_FILES);
        let there: HashSet<OsString> = names.filter(|name| name.as_bytes().starts_with(b"objset-")).collect();
        self.seen.retain(|name| there.contains(name));
        self.files.retain(|_, name| there.contains(name));
        let mut new: Vec<_> = there.into_iter().filter(|name| !self.seen.contains(name)).collect();
        // Hexadecimal numbers without leading zeros: the longer one is the higher.
        new.sort_by(|a, b| (b.len(), b).cmp(&(a.len(), a)));
        for name in new.into_iter().take(MAX_NEW) {
            if let Some(dataset) = buffer.read(&directory.join(&name)).ok().and_then(parse) {
                self.files.insert(dataset.name, name.clone());
            }
            self.seen.insert(name);
        }
    }

    /// The counters of a dataset and of those below it whose files are known. A file that is gone, or another dataset's by now,
    /// is forgotten.
    fn read(&mut self, directory: &Path, root: &str, buffer: &mut Buffer) -> Vec<Dataset> {
        let below = format!("{root}/");
        let own = self.files.get_key_value(root);
        let from = (Bound::Excluded(below.as_str()), Bound::Unbounded);
        let others = self.files.range::<str, _>(from).take_while(|(name, _)| name.starts_with(&below));
        let mut found = Vec::new();
        let mut stale = Vec::new();
        for (name, file) in own.into_iter().chain(others).take(MAX_DATASETS) {
            match buffer.read(&directory.join(file)).ok().and_then(parse) {
                Some(dataset) if dataset.name == *name => found.push(dataset),
                _ => stale.push(name.clone()),
            }
        }
        for name in stale {
            if let Some(file) = self.files.remove(&name) {
                self.seen.remove(&file);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, reads: u64) -> String {
        format!(
            "36 1 0x01 7 2160 5214787391 74985931356512\nname                            type data\n\
             dataset_name                    7    {name}\nwrites                          4    {}\n\
             nwritten                        4    {}\nreads                           4    {reads}\n\
             nread                           4    {}\nnunlinks                        4    5\n\
             nunlinked                       4    4\nzil_commit_count                4    9\n",
            reads + 1,
            reads * 10,
            reads * 100,
        )
    }

    #[test]
    fn a_file_names_its_dataset_and_counts_what_it_was_asked_for() {
        let dataset = parse(file("tank/my data/c1", 3).as_bytes()).unwrap();
        let expected = Dataset {
            name: "tank/my data/c1".into(),
            reads: Some(3),
            nread: Some(300),
            writes: Some(4),
            nwritten: Some(30),
        };
        assert_eq!(dataset, expected);
        assert_eq!(parse(b"name type data\nreads 4 1\n"), None);
        assert_eq!(parse(b"dataset_name 7 t\nreads 4 x\n").unwrap().reads, None);
    }

    /// A host with these files of the pool `tank`.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf, Datasets) {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        assert!(!is_there(&roots));
        let pool = base.path().join("proc/spl/kstat/zfs/tank");
        fs::create_dir_all(&pool).unwrap();
        for (name, dataset) in files {
            fs::write(pool.join(name), file(dataset, 1)).unwrap();
        }
        assert!(is_there(&roots));
        let datasets = Datasets::new(&roots);
        (base, pool, datasets)
    }

    fn names(datasets: &mut Datasets, root: &str, now: Instant) -> Vec<String> {
        datasets.below(root, now, &mut Buffer::new()).into_iter().map(|dataset| dataset.name).collect()
    }

    #[test]
    fn a_dataset_is_found_with_those_below_it_and_no_others() {
        let (_base, pool, mut datasets) = host(&[
            ("objset-0x36", "tank"),
            ("objset-0x100", "tank/c1"),
            ("objset-0x101", "tank/c1/a"),
            ("objset-0x102", "tank/c1-copy"),
            ("objset-0x103", "tank/c10"),
            ("objset-0x104", "tank/c1/a/b"),
        ]);
        fs::write(pool.join("txgs"), "not a dataset").unwrap();
        let now = Instant::now();
        assert_eq!(names(&mut datasets, "tank/c1", now), ["tank/c1", "tank/c1/a", "tank/c1/a/b"]);
        assert_eq!(names(&mut datasets, "tank/c1-copy", now), ["tank/c1-copy"]);
        for none in ["tank/none", "other/c1", "", "/", "../tank", "tank/"] {
            assert_eq!(names(&mut datasets, none, now), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn known_files_are_read_alone_and_changes_are_noticed() {
        let (_base, pool, mut datasets) = host(&[("objset-0x1", "tank/c1"), ("objset-0x2", "tank/c2")]);
        let start = Instant::now();
        assert_eq!(names(&mut datasets, "tank/c1", start), ["tank/c1"]);
        // Nobody lists the pool again so soon, not even for a dataset that is not found.
        fs::write(pool.join("objset-0x3"), file("tank/c3", 1)).unwrap();
        assert_eq!(names(&mut datasets, "tank/c3", start), Vec::<String>::new());
        assert_eq!(names(&mut datasets, "tank/c3", start + PAUSE), ["tank/c3"]);
        // Renamed, and gone.
        fs::write(pool.join("objset-0x1"), file("tank/new", 1)).unwrap();
        fs::remove_file(pool.join("objset-0x2")).unwrap();
        let later = start + PAUSE * 2;
        assert_eq!(names(&mut datasets, "tank/c1", later), Vec::<String>::new());
        assert_eq!(names(&mut datasets, "tank/new", later), ["tank/new"]);
        assert_eq!(names(&mut datasets, "tank/c2", later), Vec::<String>::new());
        // One below a dataset that is found is seen after a while.
        fs::write(pool.join("objset-0x4"), file("tank/new/a", 1)).unwrap();
        assert_eq!(names(&mut datasets, "tank/new", later + PAUSE), ["tank/new"]);
        assert_eq!(names(&mut datasets, "tank/new", later + AGAIN), ["tank/new", "tank/new/a"]);
        datasets.retain(|pool| pool != "tank");
        assert!(datasets.pools.is_empty());
    }

    #[test]
    fn of_very_many_files_the_newest_are_looked_up_first() {
        let many: Vec<_> =
            (1..=MAX_NEW + 10).map(|n| (format!("objset-0x{n:x}"), format!("tank/c{n}"))).collect();
        let files: Vec<_> = many.iter().map(|(name, dataset)| (name.as_str(), dataset.as_str())).collect();
        let (_base, _, mut datasets) = host(&files);
        let start = Instant::now();
        assert_eq!(names(&mut datasets, &format!("tank/c{}", MAX_NEW + 10), start).len(), 1);
        assert_eq!(names(&mut datasets, "tank/c1", start).len(), 0);
        assert_eq!(names(&mut datasets, "tank/c1", start + PAUSE).len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200), tail in any::<Vec<u8>>()) {
            let _ = parse(&text);
            let line = [b"dataset_name ".as_slice(), &tail].concat();
            if let Some(dataset) = parse(&line) {
                prop_assert!(!dataset.name.is_empty() && dataset.name.len() <= MAX_NAME);
            }
        }
    }
}
