//! Roots that are stacked on what never answers, and what slides over the way to a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::fuse::Slow;
use miharu_e2e::lxc::Config;
use miharu_e2e::scratch::{self, Entry, Note};
use miharu_e2e::{Lxc, need, rootfs, shell};
use miharu_linux::Roots;
use miharu_linux::mount_table::MountTable;
use miharu_linux::mounts::{FileSystem, Line, MAX_MOUNTS, Mount, parse};
use miharu_linux::process::ProcDir;
use miharu_linux::statfs::{Pool, Reply, Request, Whose};

use super::Scene;
use super::filesystems::Silence;

/// As many as would fill the threads that may be lost on disks, and two more.
const MANY: usize = 10;

/// A container whose root is an overlay that the host has mounted.
struct Stacked {
    lxc: Lxc,
    _overlay: Note,
}

impl Stacked {
    fn start(layers: &str) -> Result<Self> {
        let merged = scratch::dir("merged")?;
        let note = mount(&["-t", "overlay", "-o", layers, "overlay"], &merged)?;
        let rootfs = Some(format!("dir:{}", merged.display()));
        Ok(Self { lxc: Lxc::with(&Config { rootfs, ..Config::default() })?, _overlay: note })
    }
}

fn mount(args: &[&str], place: &Path) -> Result<Note> {
    let place = place.to_str().context("a path that is no UTF-8")?;
    let note = Entry::Mount(place).note()?;
    shell::run("mount", args.iter().chain([&place]))?;
    Ok(note)
}

#[test]
fn roots_stacked_on_what_never_answers_cost_nobody_else_anything() -> Result<()> {
    need!(Lxc);
    let lower = scratch::dir("lower")?;
    rootfs::make(&lower)?;
    let slow: Vec<Slow> = (0..MANY).map(|_| Slow::mount()).collect::<Result<_>>()?;
    let scene = Scene::start()?;
    let over = |slow: &Slow| Stacked::start(&format!("lowerdir={}:{}", slow.path.display(), lower.display()));
    let hung: Vec<Stacked> = slow.iter().map(over).collect::<Result<_>>()?;
    // As those of Docker's and podman's containers are, on a disk.
    let (upper, work) = (scratch::dir("upper")?, scratch::dir("work")?);
    let layers = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)];
    let layers: Vec<String> =
        layers.iter().map(|(option, path)| format!("{option}={}", path.display())).collect();
    let neighbour = Stacked::start(&layers.join(","))?;
    let value = |scrape: &miharu_e2e::Exposition, of: &Stacked, family: &str| {
        scrape.value(family, &[("name", &of.lxc.name)])
    };
    let before = scene.look()?;
    for one in hung.iter().chain([&neighbour]) {
        value(&before, one, "incus_filesystem_size_bytes")?;
    }
    let size = value(&before, &neighbour, "incus_filesystem_size_bytes")?;
    let _silence: Vec<_> = slow.iter().map(Silence::of).collect::<Result<_>>()?;
    for _ in 0..5 {
        let scrape = scene.look()?;
        assert_eq!(value(&scrape, &neighbour, "incus_instance_scrape_success")?, 1.0);
        assert_eq!(value(&scrape, &neighbour, "incus_filesystem_size_bytes")?, size);
        for one in &hung {
            assert_eq!(value(&scrape, one, "incus_instance_scrape_success")?, 0.0);
            value(&scrape, one, "incus_procs_total")?;
        }
    }
    scene.expect_warning(&[&hung[MANY - 1].lxc.name, "/"])
}

/// A process in whose view something is asked for.
struct Viewer(Child);

impl Viewer {
    fn start() -> Result<Self> {
        Ok(Self(Command::new("sleep").arg("1000").spawn()?))
    }

    fn view(&self) -> Result<Whose> {
        let pid = self.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = stat.rsplit_once(") ").context("no stat")?;
        let start_ticks = rest.split(' ').nth(19).context("no start")?.parse()?;
        Ok(Whose::Process { pid, start_ticks })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a container its root can mount something between the moment at which mounts are read and that at which a size is asked for. What
/// is asked for here was chosen before, and so no race has to be won.
#[test]
fn what_slides_over_the_way_to_a_disk_holds_no_thread_of_the_disks() -> Result<()> {
    need!(Containers);
    let (way, open): (PathBuf, PathBuf) = (scratch::dir("way")?, scratch::dir("open")?);
    let disks = ["one", "two"].map(|name| way.join(name));
    let mut kept = Vec::new();
    for disk in disks.iter().chain([&open]) {
        fs::create_dir_all(disk)?;
        kept.push(mount(&["-t", "tmpfs", "none"], disk)?);
    }
    let text = fs::read("/proc/self/mountinfo")?;
    let mounts = parse(&text, MAX_MOUNTS);
    let at = |place: &Path| -> Result<FileSystem> {
        let found = mounts.iter().map(Line::to_mount).find(|mount| mount.mountpoint == place);
        Ok(FileSystem { mounts: vec![found.context("not mounted")?] })
    };
    let viewers: Vec<Viewer> = (0..MANY).map(|_| Viewer::start()).collect::<Result<_>>()?;
    let pool = Pool::new(Roots::default(), 8);
    let ask = |places: &[&Path]| -> Result<Vec<Reply>> {
        let mut requests = Vec::new();
        for viewer in &viewers {
            for place in places {
                requests.push(Request::new(viewer.view()?, &at(place)?));
            }
        }
        Ok(pool.ask(requests, Instant::now() + Duration::from_secs(2)))
    };
    let places = [disks[0].as_path(), disks[1].as_path()];
    let replies = ask(&places)?;
    assert!(replies.iter().all(|reply| reply.answer().is_some()), "{replies:?}");
    let slow = Slow::over(way.clone())?;
    let silence = Silence::of(&slow)?;
    shell::wait_for("a thread that hangs on each", Duration::from_secs(20), || {
        assert_eq!(ask(&places).ok()?, [Reply::Late; 2 * MANY]);
        (pool.stuck().len() == 2 * MANY).then_some(())
    })?;
    let replies = ask(&[&open])?;
    assert!(replies.iter().all(|reply| reply.answer().is_some()), "{replies:?}");
    drop(silence);
    Ok(())
}

/// The kernel gives the number of a mount that is gone to the next one.
#[test]
fn a_mount_that_has_anothers_number_by_now_is_not_asked() -> Result<()> {
    need!(Containers);
    let place = scratch::dir("again")?;
    let own = ProcDir::open(&Roots::default(), std::process::id())?;
    let small = mount(&["-t", "tmpfs", "-o", "size=1m", "none"], &place)?;
    let table = MountTable::read(&own);
    let text = fs::read("/proc/self/mountinfo")?;
    let found = parse(&text, MAX_MOUNTS).iter().map(Line::to_mount).find(|mount| mount.mountpoint == place);
    let file_system = FileSystem { mounts: vec![found.context("not mounted")?] };
    let Some(table) = table else {
        println!("skipped: this kernel tells no numbers that are given once");
        return Ok(());
    };
    let viewer = Viewer::start()?;
    let request = Request::new(viewer.view()?, &file_system).of_mounts(&table.numbers());
    let pool = Pool::new(Roots::default(), 2);
    let ask = || pool.ask(vec![request.clone()], Instant::now() + Duration::from_secs(10));
    let size = |replies: &[Reply]| Some(replies.first()?.answer()?.sizes.size);
    assert_eq!(size(&ask()), Some(1 << 20));
    drop(small);
    let _large = mount(&["-t", "tmpfs", "-o", "size=2m", "none"], &place)?;
    assert_eq!(ask(), [Reply::Nothing]);
    Ok(())
}

/// A FUSE that has come to have the numbers of a mount and of a file system that are gone, as far as can be told by these.
#[test]
fn what_is_no_disk_holds_no_thread_of_the_disks_whatever_it_was_called() -> Result<()> {
    need!(Containers);
    let (slow, open) = (Slow::mount()?, scratch::dir("open")?);
    let _kept = mount(&["-t", "tmpfs", "none"], &open)?;
    let text = fs::read("/proc/self/mountinfo")?;
    let mounts = parse(&text, MAX_MOUNTS);
    let as_a_disk = |place: &Path| -> Result<FileSystem> {
        let found = mounts.iter().map(Line::to_mount).find(|mount| mount.mountpoint == place);
        let found = found.context("not mounted")?;
        Ok(FileSystem { mounts: vec![Mount { fstype: "tmpfs".to_owned(), ..found }] })
    };
    let viewers: Vec<Viewer> = (0..MANY).map(|_| Viewer::start()).collect::<Result<_>>()?;
    let pool = Pool::new(Roots::default(), 8);
    let ask = |place: &Path| -> Result<Vec<Reply>> {
        let file_system = as_a_disk(place)?;
        let requests = viewers.iter().map(|viewer| Ok(Request::new(viewer.view()?, &file_system)));
        let requests: Vec<Request> = requests.collect::<Result<_>>()?;
        Ok(pool.ask(requests, Instant::now() + Duration::from_secs(2)))
    };
    let is_answered = |replies: &[Reply]| replies.iter().all(|reply| reply.answer().is_some());
    ensure!(is_answered(&ask(&slow.path)?), "while it answers, all the same");
    let _silence = Silence::of(&slow)?;
    shell::wait_for("a thread that hangs for each", Duration::from_secs(20), || {
        assert_eq!(ask(&slow.path).ok()?, [Reply::Late; MANY]);
        (pool.stuck().len() == MANY).then_some(())
    })?;
    ensure!(is_answered(&ask(&open)?), "a disk");
    Ok(())
}
