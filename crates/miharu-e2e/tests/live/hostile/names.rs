//! Names with every byte that the kernel allows in them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, Result, ensure};
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::{Lxc, guest, need, shell};

use super::Scene;

/// Every byte but those.
fn all_but(those: &[u8]) -> Vec<u8> {
    (1..=255).filter(|byte| !those.contains(byte)).collect()
}

#[test]
fn interfaces_with_every_byte_that_a_name_can_hold() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    // What dev_valid_name of net/core/dev.c refuses, and the blanks of its isspace; `%` stands for a number.
    let bytes = all_but(b"/: \t\n\x0b\x0c\r\xa0%");
    let pid = lxc.pid.to_string();
    let mut made = 0;
    for (number, some) in bytes.chunks(13).enumerate() {
        let mut name = vec![b'a' + u8::try_from(number)?];
        name.extend(some);
        let start = ["-t", &pid, "-n", "ip", "link", "add", "name"].map(OsString::from);
        let end = ["type", "veth", "peer", "name"].map(OsString::from);
        let peer = OsString::from(format!("peer{number}"));
        let args = start.into_iter().chain([OsString::from_vec(name)]).chain(end).chain([peer]);
        shell::run("nsenter", args)?;
        made += 1;
    }
    let scrape = scene.watch()?;
    let of = [("name", lxc.name.as_str())];
    let devices = scrape.select("incus_network_receive_bytes_total", &of);
    // Those of ASCII alone, and those which are no UTF-8: each has a letter of its own in front.
    assert_eq!(devices.iter().filter(|sample| !sample.label("device").starts_with("peer")).count(), made + 1);
    assert!(devices.iter().any(|sample| sample.label("device").contains("\\")), "{devices:?}");
    assert_eq!(scrape.value("incus_instance_scrape_success", &of)?, 1.0);
    Ok(())
}

#[test]
fn mount_points_and_devices_with_every_byte_that_a_path_can_hold() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let disk = LoopDevice::create(16 << 20, None)?;
    let in_root = |prefix: &str, not: &[u8]| {
        let mut path = OsString::from(prefix);
        path.push(OsString::from_vec(all_but(not)));
        path
    };
    // busybox takes a source with a `#` for something else.
    let (device, place) = (in_root("/dev/", b"/#"), in_root("/mnt/", b"/"));
    let inside = |args: &[&OsStr]| {
        let start = ["-t", &lxc.pid.to_string(), "-m", "-r", "-w"].map(OsString::from);
        let nsenter = guest::find("nsenter").context("nsenter")?;
        let nsenter = nsenter.to_str().context("nsenter")?;
        shell::run(nsenter, start.into_iter().chain(args.iter().map(OsString::from)))
    };
    inside(&[OsStr::new("/bin/mknod"), &device, OsStr::new("b"), OsStr::new("7"), OsStr::new(disk.minor())])?;
    inside(&[OsStr::new("/bin/mkdir"), &place])?;
    inside(&[OsStr::new("/bin/mount"), OsStr::new("-t"), OsStr::new("ext4"), &device, &place])?;
    let scrape = scene.watch()?;
    let expected = place.to_string_lossy().into_owned();
    let labels = [("name", lxc.name.as_str()), ("mountpoint", expected.as_str())];
    let found = scrape.select("incus_filesystem_size_bytes", &labels);
    ensure!(found.len() == 1, "{:?}", scrape.select("incus_filesystem_size_bytes", &labels[..1]));
    assert_eq!(found[0].label("device"), device.to_string_lossy());
    Ok(())
}

#[test]
fn cgroups_with_every_byte_that_a_name_can_hold() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let before = super::series(&scene.look()?, &lxc.name);
    // The kernel refuses a newline, as it would end a line of /proc/PID/cgroup.
    let name = OsString::from_vec(all_but(b"/\n"));
    let dirs: Vec<_> =
        lxc.cgroups()?.dirs().into_iter().filter(|dir| !dir.to_string_lossy().contains("/cpuset/")).collect();
    for dir in &dirs {
        let refused = fs::create_dir(dir.join("a\nb")).map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::InvalidInput));
        let below = dir.join(&name).join("x (deleted)");
        fs::create_dir_all(&below)?;
        fs::write(below.join("cgroup.procs"), lxc.pid.to_string())?;
    }
    let own = fs::read(format!("/proc/{}/cgroup", lxc.pid))?;
    assert!(own.windows(name.len()).any(|part| part == name.as_bytes()), "its first process is in it");
    for daemon in [None, Some(miharu_e2e::Miharud::start()?)] {
        let scrape = match &daemon {
            None => scene.watch()?,
            Some(daemon) => {
                daemon.scrape()?;
                daemon.scrape()?
            }
        };
        let mut after = super::series(&scrape, &lxc.name);
        // On version 1 this counter is absent where there are cgroups below, whatever they are called.
        after.extend(before.iter().filter(|series| series.contains("OOM_kills")).cloned());
        assert!(before.is_subset(&after), "{:?}", before.difference(&after).collect::<Vec<_>>());
        assert_eq!(scrape.value("incus_instance_scrape_success", &[("name", &lxc.name)])?, 1.0);
    }
    Ok(())
}
