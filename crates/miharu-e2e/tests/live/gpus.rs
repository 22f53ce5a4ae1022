//! GPUs of instances, through a stand-in for NVIDIA's library that this test builds: it has the interface of the real one, and
//! tells of real processes of a real container. No real GPU has been met here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use miharu_e2e::{Exposition, Lxc, Miharud, need, scratch, shell};

/// Tells what a file says: lines `GPU PID COMPUTE GRAPHICS PERCENT`, or `hang`.
const STAND_IN: &str = include_str!("gpus/stand_in.c");

/// Builds the library in a folder, which the dynamic linker is then told of, and gives the folder and the library's file.
fn stand_in() -> Result<(PathBuf, PathBuf)> {
    let folder = scratch::dir("gpu")?;
    let (source, told) = (folder.join("stand_in.c"), folder.join("told"));
    fs::write(&source, STAND_IN)?;
    fs::write(&told, "")?;
    let library = folder.join("libnvidia-ml.so.1");
    let args = ["-shared", "-fPIC", "-O1", "-o"].map(Path::new);
    shell::run("cc", args.into_iter().chain([library.as_path(), source.as_path()]))?;
    Ok((folder, told))
}

fn gpu(scrape: &Exposition, family: &str, lxc: &Lxc, gpu: &str) -> Result<f64> {
    scrape.value(family, &[("name", &lxc.name), ("gpu", gpu)])
}

const MEMORY: &str = "incus_gpu_memory_used_bytes";
const WORK: &str = "incus_gpu_utilization_ratio";

#[test]
fn processes_on_a_gpu_are_their_containers() -> Result<()> {
    need!(Lxc, Compiler);
    let (folder, told) = stand_in()?;
    let environment = [("LD_LIBRARY_PATH", folder.as_path()), ("MIHARU_STAND_IN", told.as_path())];
    let (one, other) = (Lxc::start(&[])?, Lxc::start(&[])?);
    let daemon = Miharud::with_environment(&environment)?;
    let nothing = daemon.scrape()?;
    assert!(nothing.family(MEMORY).is_none() && nothing.family(WORK).is_none());

    let own = std::process::id();
    fs::write(
        &told,
        format!(
            "0 {} 1000 0 50\n0 {own} 77 0 40\n1 {} 200 200 0\n1 {} 5 0 25\n2 {} 9 9 99\n0 4194304 9 9 99\n",
            one.pid, one.pid, other.pid, one.pid
        ),
    )?;
    let scrape =
        daemon.scrape_until("the GPUs", Duration::from_secs(10), |scrape| scrape.family(MEMORY).is_some())?;
    assert_eq!(gpu(&scrape, MEMORY, &one, "GPU-0")?, 1000.0);
    assert_eq!(gpu(&scrape, WORK, &one, "GPU-0")?, 0.5);
    assert_eq!(gpu(&scrape, MEMORY, &one, "GPU-1")?, 200.0, "one process in both lists");
    assert_eq!(gpu(&scrape, WORK, &one, "GPU-1")?, 0.0);
    assert_eq!((gpu(&scrape, MEMORY, &other, "GPU-1")?, gpu(&scrape, WORK, &other, "GPU-1")?), (5.0, 0.25));
    // The third is divided, and no instance has this test's own process.
    assert_eq!(scrape.select(MEMORY, &[]).len(), 3);
    assert_eq!(scrape.select(WORK, &[]).len(), 3);

    fs::write(&told, "hang\n")?;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    loop {
        let start = Instant::now();
        let scrape = daemon.scrape()?;
        slowest = slowest.max(start.elapsed());
        assert!(scrape.value("incus_procs_total", &[("name", &one.name)])? >= 1.0);
        if daemon.miharu(&["warning", "list"])?.contains("NVIDIA's management library: it does not answer") {
            break;
        }
        assert!(begun.elapsed() < shell::patient(Duration::from_secs(30)), "no warning");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(slowest < shell::patient(Duration::from_secs(1)), "a scrape took {slowest:?}");
    println!("with a hung library the slowest scrape took {slowest:?}");
    fs::write(&told, format!("0 {} 3000 0 10\n", one.pid))?;
    let scrape = daemon.scrape_until("the GPU again", Duration::from_secs(10), |scrape| {
        gpu(scrape, MEMORY, &one, "GPU-0").is_ok_and(|memory| memory == 3000.0)
    })?;
    assert_eq!(scrape.select(MEMORY, &[]).len(), 1);
    assert!(!daemon.miharu(&["warning", "list"])?.contains("NVIDIA"));
    Ok(())
}

#[test]
fn without_the_library_nothing_is_served_and_nothing_is_said() -> Result<()> {
    need!(Lxc);
    let (lxc, daemon) = (Lxc::start(&[])?, Miharud::start()?);
    let scrape = daemon.scrape()?;
    assert!(scrape.value("incus_procs_total", &[("name", &lxc.name)])? >= 1.0);
    if !Path::new("/dev/nvidiactl").exists() {
        assert!(scrape.family(MEMORY).is_none() && scrape.family(WORK).is_none());
        assert!(!daemon.miharu(&["warning", "list"])?.contains("NVIDIA"));
        assert!(!daemon.log().contains("NVIDIA") && !daemon.log().contains("nvidia"));
    }
    Ok(())
}
