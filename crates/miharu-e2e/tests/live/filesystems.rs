//! File systems as `df` inside shows them: on a volume of their own, mounted into the container, and shared with the host.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use miharu_e2e::loopdev::{self, LoopDevice};
use miharu_e2e::lxc::Config;
use miharu_e2e::{Exposition, Lxc, Miharud, need, rootfs, scratch};

/// What `stat -f` and `df` inside say of a path, in bytes and files.
struct Inside {
    size: f64,
    free: f64,
    avail: f64,
    files: f64,
    files_free: f64,
}

fn inside(lxc: &Lxc, path: &str) -> Result<Inside> {
    let text = lxc.exec(&format!("stat -f -c '%S %b %f %a %c %d' '{path}'"))?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [block, size, free, avail, files, files_free] = numbers[..] else { anyhow::bail!("{text}") };
    Ok(Inside { size: size * block, free: free * block, avail: avail * block, files, files_free })
}

/// `df -k` inside: the size in bytes.
fn df(lxc: &Lxc, path: &str) -> Result<f64> {
    let text = lxc.exec(&format!("df -P -k '{path}'"))?;
    let line = text.lines().nth(1).context("df")?;
    Ok(line.split_whitespace().nth(1).context("df")?.parse::<f64>()? * 1024.0)
}

fn agrees(scrape: &Exposition, lxc: &Lxc, path: &str) -> Result<()> {
    let labels = [("name", lxc.name.as_str()), ("mountpoint", path)];
    let wanted = inside(lxc, path)?;
    assert_eq!(scrape.value("incus_filesystem_size_bytes", &labels)?, wanted.size);
    assert_eq!(scrape.value("incus_filesystem_size_bytes", &labels)?, df(lxc, path)?);
    assert_eq!(scrape.value("incus_filesystem_free_bytes", &labels)?, wanted.free);
    assert_eq!(scrape.value("incus_filesystem_avail_bytes", &labels)?, wanted.avail);
    assert_eq!(scrape.value("incus_filesystem_files", &labels)?, wanted.files);
    assert_eq!(scrape.value("incus_filesystem_files_free", &labels)?, wanted.files_free);
    Ok(())
}

fn mountpoints(scrape: &Exposition, lxc: &Lxc) -> BTreeSet<String> {
    let samples = scrape.select("incus_filesystem_size_bytes", &[("name", &lxc.name)]);
    samples.iter().map(|sample| sample.label("mountpoint").to_owned()).collect()
}

#[test]
fn a_root_on_a_volume_of_its_own_has_its_own_size() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let tree = scratch::dir("tree")?;
    rootfs::make(&tree)?;
    let image = loopdev::image(48 << 20, Some(&tree))?;
    let lxc = Lxc::with(&Config { rootfs: Some(format!("loop:{}", image.display())), ..Config::default() })?;
    lxc.exec("dd if=/dev/zero of=/var/data bs=64k count=64 2>/dev/null; sync")?;
    let scrape = daemon.scrape()?;
    agrees(&scrape, &lxc, "/")?;
    let samples = scrape.select("incus_filesystem_size_bytes", &[("name", &lxc.name)]);
    assert_eq!(samples.len(), 1, "{samples:?}");
    assert_eq!(samples[0].label("fstype"), "ext4");
    assert!(samples[0].label("device").starts_with("/dev/loop"), "{samples:?}");
    let shared = scrape.select("incus_filesystem_shared", &[("name", &lxc.name)]);
    assert!(shared.iter().all(|sample| sample.value == 0.0), "{shared:?}");
    Ok(())
}

#[test]
fn a_disk_mounted_into_the_container_is_shown_under_its_path_inside() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let disk = LoopDevice::create(32 << 20, None)?;
    let entry = format!("lxc.mount.entry = {} mnt/my\\040disk ext4 defaults,create=dir 0 0", disk.device);
    let lxc = Lxc::start(&[&entry])?;
    lxc.exec("dd if=/dev/zero of='/mnt/my disk/data' bs=64k count=32 2>/dev/null; sync")?;
    let scrape = daemon.scrape()?;
    agrees(&scrape, &lxc, "/mnt/my disk")?;
    assert_eq!(mountpoints(&scrape, &lxc), BTreeSet::from(["/".to_owned(), "/mnt/my disk".to_owned()]));
    Ok(())
}

#[test]
fn a_folder_as_root_shows_the_shared_file_system_unless_that_is_switched_off() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let scrape = daemon.scrape()?;
    let labels = [("name", lxc.name.as_str()), ("mountpoint", "/")];
    assert_eq!(scrape.value("incus_filesystem_size_bytes", &labels)?, inside(&lxc, "/")?.size);
    assert_eq!(scrape.value("incus_filesystem_shared", &labels)?, 1.0);
    daemon.miharu(&["config", "set", "metrics.shared_filesystems", "false"])?;
    let scrape = daemon.scrape()?;
    assert!(mountpoints(&scrape, &lxc).is_empty());
    assert!(scrape.value("incus_procs_total", &[("name", &lxc.name)])? > 0.0);
    Ok(())
}

#[test]
fn tmpfs_binds_and_pseudo_file_systems_are_left_out() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    lxc.exec("mount -t tmpfs none /mnt; mkdir -p /var/a /var/b; mount --bind /var/a /var/b; echo x >/etc/hosts; mount --bind /etc/hosts /etc/group")?;
    let scrape = daemon.scrape()?;
    assert_eq!(
        mountpoints(&scrape, &lxc),
        BTreeSet::from(["/".to_owned()]),
        "the bind is the same device as the root"
    );
    Ok(())
}
