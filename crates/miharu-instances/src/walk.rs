//! The walk over the names of cgroups: no file is opened, and nothing below a claimed cgroup is looked at.
//!
//! What was listed is kept, and the kernel tells which directories have changed since; only these are listed again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miharu_linux::cgroup::Hierarchies;
use miharu_linux::changes::{Change, Changes, WatchId};

use crate::discovery::Warning;
use crate::driver::{Claim, Driver, is_trusted};

/// The most cgroups that are visited. A host's users may make cgroups of their own, as many as they like; half of this, and of
/// what is claimed, is for the system's alone.
const MAX_CGROUPS: usize = 100_000;

/// The most cgroups that are claimed. A test makes as many.
const MAX_CLAIMS: usize = if cfg!(test) { 200 } else { 20_000 };

/// The most directories that are watched, which takes about a kilobyte of the kernel's memory for each. The others are
/// listed every time.
const MAX_WATCHES: usize = 20_000;

/// How often everything is listed anew: what happens in another cgroup namespace is not told.
const ALL: Duration = Duration::from_secs(300);

/// A claim and the drivers (by their place in the list) that made it.
pub(crate) type Claimed = (Claim, Vec<usize>);

/// A directory: its hierarchy's place in the list, and its path there.
type Key = (usize, PathBuf);

/// The cgroups of a host, as they were at the last look.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    changes: Changes,
    roots: Vec<PathBuf>,
    /// The cgroups that nobody claims.
    listings: BTreeMap<Key, Listing>,
    watched: HashMap<WatchId, Key>,
    unwatched: BTreeSet<Key>,
    /// When everything was listed; nothing where that is to be done.
    listed: Option<Instant>,
    /// Cgroups that drivers claim whatever they are called, and which drivers.
    placed: Placed,
    /// Cgroups that are looked into, whatever claims them.
    opened: BTreeSet<PathBuf>,
    /// The directories in which that has changed since the last look.
    replaced: BTreeSet<PathBuf>,
    /// How many entries are claimed, in all hierarchies.
    claimed: usize,
    is_cut_short: bool,
    /// A directory that could not be listed at the last look, and why.
    unlisted: Option<(PathBuf, io::Error)>,
    claims: BTreeMap<PathBuf, Claimed>,
}

/// Cgroups by their paths, and the drivers (by their place in the list) that claim them.
type Placed = BTreeMap<PathBuf, BTreeSet<usize>>;

/// What is in a directory.
#[derive(Debug, Default)]
struct Listing {
    /// The directory's inode number.
    inode: u64,
    watch: Option<WatchId>,
    claimed: Vec<Entry>,
}

/// A claimed cgroup in a directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    inode: u64,
    claimants: Vec<usize>,
}

/// Whether a look found other claims than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Some,
    None,
}

impl Walk {
    /// All claimed cgroups as of the last look, by their path.
    pub(crate) fn claims(&self) -> &BTreeMap<PathBuf, Claimed> {
        &self.claims
    }

    /// Lets a driver claim these cgroups, and no others that are not called like its own, from the next look on.
    pub(crate) fn place(&mut self, driver: usize, places: &BTreeSet<PathBuf>) {
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        for (path, drivers) in &mut self.placed {
            if !places.contains(path) && drivers.remove(&driver) {
                self.replaced.insert(parent(path));
            }
        }
        self.placed.retain(|_, drivers| !drivers.is_empty());
        for path in places {
            if self.placed.entry(path.clone()).or_default().insert(driver) {
                self.replaced.insert(parent(path));
            }
        }
    }

    /// Looks into a claimed cgroup, which turned out to be nobody's and to hold others' instances, from the next look on.
    pub(crate) fn open(&mut self, path: PathBuf) {
        self.replaced.insert(path.parent().unwrap_or(Path::new("")).to_owned());
        self.opened.insert(path);
    }

    /// Brings [`Walk::claims`] up to date.
    pub(crate) fn look(
        &mut self,
        hierarchies: &Hierarchies,
        drivers: &[Box<dyn Driver>],
        warnings: &mut Vec<Warning>,
    ) -> News {
        let roots = hierarchies.walk_roots();
        self.unlisted = None;
        let news = match self.changed(&roots) {
            Some(changed) => self.visit(changed, drivers),
            None => {
                self.list_all(&roots, drivers);
                News::Some
            }
        };
        if news == News::Some {
            self.claims = self.gather();
        }
        if self.is_cut_short {
            warnings.push(Warning::TooManyCgroups);
        }
        if let Some((directory, error)) = &self.unlisted {
            let (directory, problem) = (directory.clone(), error.to_string());
            warnings.push(Warning::Unlisted { directory, problem });
        }
        news
    }

    /// The directories that are to be listed; nothing where all are.
    fn changed(&mut self, roots: &[&Path]) -> Option<BTreeSet<Key>> {
        let mut changed = BTreeSet::new();
        let mut everything = self.roots != roots || self.listed.is_none_or(|listed| listed.elapsed() >= ALL);
        let (watched, listings, unwatched) = (&mut self.watched, &mut self.listings, &mut self.unwatched);
        self.changes.drain(|change| match change {
            Change::In(id) => changed.extend(watched.get(&id).cloned()),
            Change::Gone(id) => {
                // If it is still there, it is another directory of that name.
                let Some(key) = watched.remove(&id) else { return };
                if let Some(listing) = listings.get_mut(&key) {
                    listing.watch = None;
                    unwatched.insert(key);
                }
            }
            Change::Everything => everything = true,
        });
        changed.extend(self.unwatched.iter().cloned());
        let replaced = std::mem::take(&mut self.replaced).into_iter();
        let replaced = replaced.flat_map(|path| (0..roots.len()).map(move |root| (root, path.clone())));
        // One that is not known is new, or nobody's business.
        changed.extend(replaced.filter(|key| self.listings.contains_key(key)));
        (!everything).then_some(changed)
    }

    /// Lists everything anew.
    fn list_all(&mut self, roots: &[&Path], drivers: &[Box<dyn Driver>]) {
        let mut anew = Self {
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            listed: Some(Instant::now()),
            placed: self.placed.clone(),
            opened: self.opened.iter().filter(|path| self.is_listed(path)).cloned().collect(),
            ..Self::default()
        };
        anew.visit((0..roots.len()).map(|root| (root, PathBuf::new())).collect(), drivers);
        // Rather what was known before than a part of what there is; the next look tries again.
        if anew.unlisted.is_some() && self.roots == roots && !self.listings.is_empty() {
            self.listed = None;
            self.unlisted = anew.unlisted;
        } else {
            *self = anew;
        }
    }

    fn is_listed(&self, path: &Path) -> bool {
        (0..self.roots.len()).any(|root| self.listings.contains_key(&(root, path.to_owned())))
    }

    /// Lists these directories and what turns out to be new below them. Whether there are other claims than before.
    fn visit(&mut self, mut waiting: BTreeSet<Key>, drivers: &[Box<dyn Driver>]) -> News {
        let mut news = News::None;
        while let Some(key) = waiting.pop_first() {
            if self.list(key, drivers, &mut waiting) == News::Some {
                news = News::Some;
            }
        }
        news
    }

    /// An instance has a cgroup in each hierarchy.
    fn max_claimed(&self) -> usize {
        MAX_CLAIMS * self.roots.len().max(1)
    }

    /// Lists a directory; those that are new in it wait for their turn. Whether there are other claims than before.
    fn list(&mut self, key: Key, drivers: &[Box<dyn Driver>], waiting: &mut BTreeSet<Key>) -> News {
        let (root, path) = &key;
        let Some(directory) = self.roots.get(*root).map(|root| root.join(path)) else { return News::None };
        let metadata = std::fs::symlink_metadata(&directory).ok();
        let inode = metadata.as_ref().map_or(0, MetadataExt::ino);
        // A user who fills all that there is room for leaves half of it to the system's own.
        let share = if metadata.is_some_and(|metadata| !is_trusted(metadata.uid())) { 2 } else { 1 };
        let max_claimed = self.max_claimed() / share;
        // What is known is listed also where there are too many: its instances come and go as before.
        let is_new = !self.listings.contains_key(&key);
        if is_new && (self.listings.len() >= MAX_CGROUPS / share || self.claimed >= max_claimed) {
            self.is_cut_short = true;
            return News::None;
        }
        // Watched first: what comes in between is listed twice rather than never.
        let watch = match self.listings.get(&key).and_then(|listing| listing.watch) {
            Some(watch) => Some(watch),
            None if self.watched.len() < MAX_WATCHES => self.changes.watch(&directory),
            None => None,
        };
        // A directory with two links has no other in it.
        let listed = match std::fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.nlink() == 2 => Ok(Default::default()),
            Ok(_) => entries(&directory, path, drivers, &self.placed, &self.opened),
            Err(error) if is_nothing(&error) => return self.forget(&key),
            Err(error) => Err(error),
        };
        let (mut claimed, below) = match listed {
            Ok(listed) => listed,
            // Such as that no descriptor is left. It says nothing of what is there, so what is known stays, and the
            // next look tries again.
            Err(error) => {
                if let Some(watch) = watch {
                    self.watched.insert(watch, key.clone());
                }
                let listing = self.listings.entry(key.clone()).or_default();
                (listing.inode, listing.watch) = (inode, watch);
                self.unwatched.insert(key);
                self.unlisted = Some((directory, error));
                return News::None;
            }
        };
        // Also where another has come in its place: the end of a watched cgroup is not told, IN_DELETE_SELF waits for an inode
        // that the watch itself keeps.
        let is_same = |child: &&Key| {
            let inode = self.listings.get(*child).map(|listing| listing.inode);
            inode.is_some() && below.get(&child.1).copied() == inode
        };
        let gone: Vec<Key> = self.children(&key).filter(|child| !is_same(child)).cloned().collect();
        let mut news = News::None;
        for child in gone {
            news = if self.forget(&child) == News::Some { News::Some } else { news };
        }
        for path in below.into_keys() {
            let child = (*root, path);
            // One that is known is listed when it changes itself.
            if !self.listings.contains_key(&child) {
                waiting.insert(child);
            }
        }
        match watch {
            Some(watch) => {
                self.unwatched.remove(&key);
                self.watched.insert(watch, key.clone());
            }
            None => {
                self.unwatched.insert(key.clone());
            }
        }
        let listing = self.listings.entry(key).or_default();
        (listing.inode, listing.watch) = (inode, watch);
        let of_others = self.claimed.saturating_sub(listing.claimed.len());
        if of_others + claimed.len() > max_claimed {
            claimed.truncate(max_claimed.saturating_sub(of_others));
            self.is_cut_short = true;
        }
        self.claimed = of_others + claimed.len();
        if listing.claimed != claimed || (is_new && !claimed.is_empty()) {
            listing.claimed = claimed;
            news = News::Some;
        }
        news
    }

    /// The directories that are known right below this one.
    fn children<'w>(&'w self, key: &'w Key) -> impl Iterator<Item = &'w Key> {
        self.subtree(key).filter(|child| child.1.parent() == Some(&key.1))
    }

    /// This directory and all that are known below it.
    fn subtree<'w>(&'w self, key: &'w Key) -> impl Iterator<Item = &'w Key> {
        let is_below = move |child: &&Key| child.0 == key.0 && child.1.starts_with(&key.1);
        self.listings.range(key.clone()..).map(|(key, _)| key).take_while(is_below)
    }

    /// Forgets a directory that is gone, and all below it. Whether claims are gone with it.
    fn forget(&mut self, key: &Key) -> News {
        let all: Vec<Key> = self.subtree(key).cloned().collect();
        let mut news = News::None;
        for key in all {
            self.unwatched.remove(&key);
            let Some(listing) = self.listings.remove(&key) else { continue };
            if let Some(watch) = listing.watch {
                self.changes.forget(watch);
                self.watched.remove(&watch);
            }
            self.claimed = self.claimed.saturating_sub(listing.claimed.len());
            if !listing.claimed.is_empty() {
                news = News::Some;
            }
        }
        news
    }

    /// All claims, each with its directories in the order of the hierarchies.
    fn gather(&self) -> BTreeMap<PathBuf, Claimed> {
        let mut claims: BTreeMap<PathBuf, Claimed> = BTreeMap::new();
        for ((root, _), listing) in &self.listings {
            let Some(root) = self.roots.get(*root) else { continue };
            for Entry { path, inode, claimants } in &listing.claimed {
                let (claim, _) = claims.entry(path.clone()).or_insert_with(|| {
                    let claim = Claim { path: path.clone(), directories: Vec::new(), inode: *inode };
                    (claim, claimants.clone())
                });
                claim.directories.push(root.join(path));
            }
        }
        claims
    }
}

/// Whether a cgroup has just gone, or only its owner may list it: then it has nothing to tell.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

/// The claimed cgroups in a directory, and the paths and inode numbers of the others.
fn entries(
    directory: &Path,
    path: &Path,
    drivers: &[Box<dyn Driver>],
    placed: &Placed,
    opened: &BTreeSet<PathBuf>,
) -> io::Result<(Vec<Entry>, BTreeMap<PathBuf, u64>)> {
    let (mut claimed, mut below) = (Vec::new(), BTreeMap::new());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_nothing(&error) => return Ok((claimed, below)),
        Err(error) => return Err(error),
    };
    let parent = path.file_name().unwrap_or_default();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_nothing(&error) => break,
            Err(error) => return Err(error),
        };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let path = path.join(&name);
        let claimants = claimants(drivers, &name, parent, placed.get(&path));
        if claimants.is_empty() || opened.contains(&path) {
            below.insert(path, entry.ino());
        } else {
            claimed.push(Entry { path, inode: entry.ino(), claimants });
        }
    }
    claimed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((claimed, below))
}

fn claimants(
    drivers: &[Box<dyn Driver>],
    name: &OsStr,
    parent: &OsStr,
    placed: Option<&BTreeSet<usize>>,
) -> Vec<usize> {
    let is_placed = |place: &usize| placed.is_some_and(|placed| placed.contains(place));
    drivers
        .iter()
        .enumerate()
        .filter(|(place, driver)| driver.claims(name, parent) || is_placed(place))
        .map(|(place, _)| place)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use miharu_linux::Roots;

    use super::*;
    use crate::{DriverOptions, drivers};

    /// A v2 host with these cgroups.
    fn host(cgroups: &[&str]) -> (tempfile::TempDir, Hierarchies) {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        fs::create_dir_all(&roots.cgroup).unwrap();
        fs::write(roots.cgroup.join("cgroup.controllers"), "").unwrap();
        for cgroup in cgroups {
            fs::create_dir_all(roots.cgroup.join(cgroup)).unwrap();
        }
        let hierarchies = Hierarchies::find(&roots).unwrap();
        (base, hierarchies)
    }

    fn claims(walk: &Walk) -> Vec<&str> {
        walk.claims().keys().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn what_comes_and_goes_is_seen_and_nothing_else_is_listed() {
        let (base, hierarchies) = host(&["a/b", "lxc.payload.c1/lxc.payload.inner", "z"]);
        let top = Roots::at(base.path()).cgroup;
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        let look = |walk: &mut Walk| walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["lxc.payload.c1"], "nothing below a claimed one");
        assert_eq!(look(&mut walk), News::None);
        assert_eq!(walk.changed(&hierarchies.walk_roots()), Some(BTreeSet::new()), "nothing is listed again");
        fs::create_dir(top.join("a/b/lxc.payload.c2")).unwrap();
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["a/b/lxc.payload.c2", "lxc.payload.c1"]);
        fs::create_dir_all(top.join("z/y/x")).unwrap();
        assert_eq!(look(&mut walk), News::None);
        fs::create_dir(top.join("z/y/x/lxc.payload.c3")).unwrap();
        assert_eq!(look(&mut walk), News::Some, "new directories are watched, too");
        fs::remove_dir_all(top.join("a")).unwrap();
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["lxc.payload.c1", "z/y/x/lxc.payload.c3"]);
        assert_eq!(walk.listings.len(), walk.watched.len(), "the watch of what is gone ended");
    }

    #[test]
    fn a_cgroup_that_is_made_anew_under_its_name_is_another() {
        let (base, hierarchies) = host(&["s/lxc.payload.c1"]);
        let place = Roots::at(base.path()).cgroup.join("s");
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        let inode = |walk: &Walk| walk.claims().values().next().unwrap().0.inode;
        let before = inode(&walk);
        // The old directory still exists under another name, so that its inode number cannot be given out again.
        fs::rename(place.join("lxc.payload.c1"), base.path().join("old")).unwrap();
        fs::create_dir(place.join("lxc.payload.c1")).unwrap();
        assert_eq!(walk.look(&hierarchies, &drivers, &mut Vec::new()), News::Some);
        assert_ne!(inode(&walk), before);
        fs::rename(&place, base.path().join("old s")).unwrap();
        fs::create_dir_all(place.join("lxc.payload.c9")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert_eq!(claims(&walk), ["s/lxc.payload.c9"]);
    }

    /// The kernel does not tell that a watched cgroup has ended, nor, in other file systems, that a directory has that is open.
    #[test]
    fn a_directory_that_was_replaced_without_a_word_is_listed() {
        let (base, hierarchies) = host(&["s/t"]);
        let place = Roots::at(base.path()).cgroup.join("s");
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        let look = |walk: &mut Walk| walk.look(&hierarchies, &drivers, &mut Vec::new());
        look(&mut walk);
        let kept = [fs::File::open(&place).unwrap(), fs::File::open(place.join("t")).unwrap()];
        fs::remove_dir_all(&place).unwrap();
        fs::create_dir_all(place.join("t/lxc.payload.c1")).unwrap();
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["s/t/lxc.payload.c1"]);
        fs::create_dir(place.join("t/lxc.payload.c2")).unwrap();
        look(&mut walk);
        assert_eq!(claims(&walk), ["s/t/lxc.payload.c1", "s/t/lxc.payload.c2"], "it is watched");
        assert_eq!(walk.listings.len(), walk.watched.len());
        drop(kept);
        look(&mut walk);
        assert_eq!(walk.listings.len(), walk.watched.len());
    }

    #[test]
    fn a_driver_claims_what_it_knows_by_its_place() {
        let (base, hierarchies) = host(&["a/b/docker", "z"]);
        let top = Roots::at(base.path()).cgroup;
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        let look = |walk: &mut Walk| walk.look(&hierarchies, &drivers, &mut Vec::new());
        let places = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        look(&mut walk);
        assert_eq!(claims(&walk).len(), 0);
        walk.place(1, &places(&["a/b", "z", "new/x"]));
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["a/b", "z"]);
        assert_eq!(walk.claims()[Path::new("a/b")].1, [1]);
        fs::create_dir_all(top.join("new/x/lxc.payload.inner")).unwrap();
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["a/b", "new/x", "z"], "and nothing below");
        walk.place(2, &places(&["z"]));
        walk.place(1, &places(&["new/x"]));
        walk.listed = None;
        assert_eq!(look(&mut walk), News::Some);
        assert_eq!(claims(&walk), ["new/x", "z"]);
        assert_eq!(walk.claims()[Path::new("z")].1, [2]);
        walk.place(1, &places(&[]));
        look(&mut walk);
        assert_eq!(claims(&walk), ["new/x/lxc.payload.inner", "z"]);
        assert_eq!(walk.listings.len(), walk.watched.len());
        walk.place(2, &places(&["z"]));
        assert_eq!(look(&mut walk), News::None, "nothing has changed");
    }

    #[test]
    fn a_directory_that_cannot_be_listed_keeps_what_is_known_of_it() {
        let (base, hierarchies) = host(&["lxc.payload.c1"]);
        let (top, away) = (Roots::at(base.path()).cgroup, base.path().join("away"));
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        // A file in its place is an error that is not that it is gone.
        fs::rename(&top, &away).unwrap();
        fs::write(&top, "").unwrap();
        for listed in [walk.listed, None] {
            walk.listed = listed;
            let mut warnings = Vec::new();
            walk.look(&hierarchies, &drivers, &mut warnings);
            assert_eq!(claims(&walk), ["lxc.payload.c1"]);
            assert!(matches!(&warnings[..], [Warning::Unlisted { directory, .. }] if *directory == top));
        }
        fs::remove_file(&top).unwrap();
        fs::rename(&away, &top).unwrap();
        fs::create_dir(top.join("lxc.payload.c2")).unwrap();
        let mut warnings = Vec::new();
        walk.look(&hierarchies, &drivers, &mut warnings);
        assert_eq!((claims(&walk), warnings), (vec!["lxc.payload.c1", "lxc.payload.c2"], Vec::new()));
    }

    #[test]
    fn where_there_are_too_many_what_is_known_still_comes_and_goes() {
        let (base, hierarchies) = host(&["lxc.payload.c1", "user"]);
        let top = Roots::at(base.path()).cgroup;
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert_eq!(walk.claimed, 1);
        for number in 0..MAX_CLAIMS {
            fs::create_dir(top.join(format!("user/lxc.payload.u{number}"))).unwrap();
        }
        fs::create_dir_all(top.join("new/lxc.payload.n1")).unwrap();
        let mut warnings = Vec::new();
        walk.look(&hierarchies, &drivers, &mut warnings);
        assert_eq!((walk.claims().len(), &warnings[..]), (MAX_CLAIMS, &[Warning::TooManyCgroups][..]));
        assert!(walk.claims().contains_key(Path::new("lxc.payload.c1")));
        fs::remove_dir(top.join("lxc.payload.c1")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert!(!walk.claims().contains_key(Path::new("lxc.payload.c1")), "it is gone at once");
        fs::create_dir(top.join("lxc.payload.c2")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert!(walk.claims().contains_key(Path::new("lxc.payload.c2")));
    }

    #[test]
    fn a_user_leaves_room_for_the_system() {
        // Only root can give a directory away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (base, hierarchies) = host(&["delegated"]);
        let top = Roots::at(base.path()).cgroup;
        std::os::unix::fs::chown(top.join("delegated"), Some(4242), None).unwrap();
        for number in 0..MAX_CLAIMS {
            fs::create_dir(top.join(format!("delegated/lxc.payload.u{number}"))).unwrap();
        }
        let (mut walk, drivers) = (Walk::default(), drivers(&DriverOptions::default()));
        let mut warnings = Vec::new();
        walk.look(&hierarchies, &drivers, &mut warnings);
        assert_eq!((walk.claims().len(), &warnings[..]), (MAX_CLAIMS / 2, &[Warning::TooManyCgroups][..]));
        fs::create_dir_all(top.join("new/lxc.payload.n1")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert!(walk.claims().contains_key(Path::new("new/lxc.payload.n1")));
    }

    #[test]
    fn without_watches_everything_is_looked_at_each_time() {
        let (base, hierarchies) = host(&["a/b"]);
        let mut walk = Walk { changes: Changes::none(), ..Walk::default() };
        let drivers = drivers(&DriverOptions::default());
        walk.roots = hierarchies.walk_roots().into_iter().map(Path::to_owned).collect();
        walk.listed = Some(Instant::now());
        walk.list((0, PathBuf::new()), &drivers, &mut BTreeSet::new());
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert!(walk.watched.is_empty());
        fs::create_dir(Roots::at(base.path()).cgroup.join("a/b/lxc.payload.c2")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert_eq!(claims(&walk), ["a/b/lxc.payload.c2"]);
        fs::remove_dir_all(Roots::at(base.path()).cgroup.join("a")).unwrap();
        walk.look(&hierarchies, &drivers, &mut Vec::new());
        assert_eq!(claims(&walk).len(), 0);
    }
}
