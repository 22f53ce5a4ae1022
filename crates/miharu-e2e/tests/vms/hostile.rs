//! Guests that hang, lie or babble. The machines are real, with their processors halted; behind the sockets of their virtio-serial
//! ports, where QEMU would pass on what a guest writes, a stub of the test listens instead.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::vm::Config;
use miharu_e2e::{Lxc, Miharud, Vm, need};
use serde_json::{Value, json};

use crate::agent::{PORT, from};

/// The collection's deadline is 4 s; a busy machine needs some time besides, but none for each of sixty.
const LIMIT: Duration = Duration::from_secs(6);

/// A halted machine with a port for our agent, behind which `answer` stands: it gets each request's number and the stream.
fn machine(
    answer: impl Fn(u64, &mut UnixStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<Vm> {
    let vm = Vm::halted(&Config { monitors: 0, ports: vec![PORT.into()], ..Config::default() })?;
    let socket = vm.port(PORT);
    fs::remove_file(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    Ok(vm)
}

fn serve(stream: UnixStream, answer: impl Fn(u64, &mut UnixStream) -> std::io::Result<()>) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line.ok()?).unwrap_or_default();
        if let Some(id) = request["id"].as_u64() {
            answer(id, &mut out).ok()?;
        }
    }
    None
}

/// A report as it should be, with these parts in place of its own.
fn report(parts: Value) -> Value {
    let mut report = json!({
        "agent": "miharu", "version": "0", "cpus": 1, "procs_total": 3, "boot_time_seconds": 1_700_000_000.0,
        "cpu_seconds_total": [{"cpu": "cpu0", "cpu_seconds_user": 5.0, "cpu_seconds_idle": 7.0}],
        "memory": {"memory_mem_total_bytes": 1000, "memory_mem_free_bytes": 400, "memory_cached_bytes": 5},
    });
    if let (Some(report), Some(parts)) = (report.as_object_mut(), parts.as_object()) {
        report.extend(parts.clone());
    }
    report
}

fn told(id: u64, out: &mut UnixStream, parts: Value) -> std::io::Result<()> {
    writeln!(out, "{}", json!({"id": id, "metrics": report(parts)}))
}

#[test]
fn sixty_machines_that_hang_cost_four_others_and_the_containers_nothing() -> Result<()> {
    need!(Qemu, Lxc);
    let _alone = miharu_e2e::scratch::alone()?;
    let containers = [Lxc::start(&[])?, Lxc::start(&[])?];
    let well = (0..4).map(|_| machine(|id, out| told(id, out, json!({})))).collect::<Result<Vec<_>>>()?;
    let hung = (0..60)
        .map(|number| {
            machine(move |_, out| {
                // Some say nothing, some begin and stop in mid-answer, some never come to its end.
                match number % 3 {
                    0 => out.write_all(b"{\"id\":1,\"metr"),
                    1 => Ok(()),
                    _ => (0..10_000).try_for_each(|_| {
                        std::thread::sleep(Duration::from_millis(100));
                        out.write_all(b" ")
                    }),
                }
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let daemon = Miharud::start()?;
    for round in 0..3 {
        let started = Instant::now();
        let scrape = daemon.scrape()?;
        let took = started.elapsed();
        assert!(took < LIMIT, "round {round} took {took:?}");
        for vm in &well {
            let only = [("name", vm.name.as_str())];
            assert_eq!(scrape.value("incus_memory_MemTotal_bytes", &only)?, 1000.0, "round {round}");
            assert_eq!(scrape.select("incus_instance_info", &only)[0].label("source"), "agent");
        }
        for lxc in &containers {
            let only = [("name", lxc.name.as_str())];
            assert_eq!(scrape.value("incus_instance_scrape_success", &only)?, 1.0, "round {round}");
            scrape.value("incus_memory_usage_bytes", &only)?;
        }
        let there = scrape.instances();
        assert!(hung.iter().all(|vm| there.contains(&vm.name)), "they run, whatever their guests do");
    }
    // One that never says anything is like one that has no agent.
    let talk = hung.iter().enumerate().filter(|(number, _)| number % 3 != 1);
    let offenders: Vec<_> = talk.map(|(_, vm)| (vm, "no end of its answer in time")).collect();
    let warnings = named(&daemon, &offenders)?;
    for (number, vm) in hung.iter().enumerate() {
        let is_named = warnings.iter().any(|(name, _)| *name == vm.name);
        assert!(number % 3 != 1 || !is_named, "machine {number}: {warnings:?}");
    }
    for name in well.iter().map(|vm| &vm.name).chain(containers.iter().map(|lxc| &lxc.name)) {
        assert!(warnings.iter().all(|(named, _)| named != name), "{name}: {warnings:?}");
    }
    Ok(())
}

#[test]
fn what_a_guest_says_neither_breaks_nor_forges_nor_fills_anything() -> Result<()> {
    need!(Qemu);
    let _alone = miharu_e2e::scratch::alone()?;
    let good = machine(|id, out| told(id, out, json!({})))?;
    let noise = machine(|_, out| {
        loop {
            out.write_all(&[0xff, b'{', b'\n', 0, b'"', 0x80, b'}', b'\n'].repeat(4096))?;
        }
    })?;
    let huge = machine(|_, out| {
        let piece = vec![b'x'; 1 << 20];
        (0..100).try_for_each(|_| out.write_all(&piece))
    })?;
    let many = machine(|id, out| {
        let disks: Vec<_> =
            (0..10_000).map(|n| json!({"device": format!("d{n}"), "disk_read_bytes": n})).collect();
        told(id, out, json!({"disk": disks}))
    })?;
    let victim = good.name.clone();
    let forger = machine(move |id, out| {
        let forged =
            format!("x\",name=\"{victim}\",project=\"qemu\"}} 1\nincus_procs_total{{name=\"{victim}");
        told(
            id,
            out,
            json!({
                "disk": [{"device": forged, "disk_read_bytes": 7}, {"device": forged, "disk_read_bytes": 8}],
                "network": [{"device": "a\\\n\"", "network_receive_bytes": 9}],
                "filesystem": [{"device": "d", "mountpoint": "/\n# EOF\n", "fstype": "ext4",
                    "filesystem_size_bytes": 1, "filesystem_avail_bytes": 1}],
                "name": "other", "project": "other", "procs_total": 18_446_744_073_709_551_615_u64,
            }),
        )
    })?;
    let daemon = Miharud::start()?;
    let before = resident(&daemon)?;
    for _ in 0..4 {
        let started = Instant::now();
        // The strict reader refuses duplicate and broken series.
        let scrape = daemon.scrape()?;
        assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
        let of = |vm: &Vm, family: &str| scrape.select(family, &[("name", vm.name.as_str())]).len();
        for vm in [&good, &many, &forger] {
            assert_eq!(of(vm, "incus_memory_MemTotal_bytes"), 1, "{}", vm.name);
        }
        assert!((1..=512).contains(&of(&many, "incus_disk_read_bytes_total")));
        assert_eq!(of(&good, "incus_disk_read_bytes_total"), 0, "nothing was forged");
        assert_eq!(scrape.value("incus_procs_total", &[("name", &good.name)])?, 3.0);
        assert!(of(&forger, "incus_disk_read_bytes_total") <= 1, "two of one name");
        let source = |vm: &Vm| {
            scrape.select("incus_instance_info", &[("name", vm.name.as_str())])[0].label("source").to_owned()
        };
        assert_eq!([source(&noise), source(&huge)], ["host", "host"]);
        assert!(!scrape.instances().contains("other"));
    }
    let offenders = [
        (&noise, "nothing but garbage"),
        (&huge, "an answer longer than 1 MiB"),
        (&many, "512 disks or more"),
        (&forger, "are called as others"),
    ];
    let warnings = named(&daemon, &offenders)?;
    assert!(warnings.iter().all(|(name, _)| *name != good.name), "{warnings:?}");
    let grown = resident(&daemon)? - before;
    ensure!(grown < 64e6, "miharud grew by {grown} bytes");
    drop(good);
    from(&daemon, &many.name, "agent")?;
    Ok(())
}

/// Scrapes until a warning names each of these machines with these words, which they may all have had together or one after
/// another: on a busy machine one may not have come to say anything in time. Gives the last warnings.
fn named(daemon: &Miharud, offenders: &[(&Vm, &str)]) -> Result<Vec<(String, String)>> {
    let mut missing: Vec<_> = offenders.to_vec();
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let warnings = warnings(daemon)?;
        missing.retain(|(vm, what)| {
            !warnings.iter().any(|(name, text)| *name == vm.name && text.contains(what))
        });
        if missing.is_empty() {
            return Ok(warnings);
        }
        let names: Vec<_> = missing.iter().map(|(vm, what)| (&vm.name, what)).collect();
        ensure!(Instant::now() < end, "nobody is told of {names:?}: {warnings:?}");
        std::thread::sleep(Duration::from_millis(500));
        daemon.scrape()?;
    }
}

/// Which machine or container each warning names, and what it says.
fn warnings(daemon: &Miharud) -> Result<Vec<(String, String)>> {
    let all = daemon.get("/1.0/warnings?recursion=1")?.json()?;
    let all = all["metadata"].as_array().context("warnings")?.clone();
    let text = |warning: &Value, key: &str| warning[key].as_str().unwrap_or_default().to_owned();
    let name = |url: String| {
        url.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default().to_owned()
    };
    Ok(all.iter().map(|warning| (name(text(warning, "entity_url")), text(warning, "last_message"))).collect())
}

fn resident(daemon: &Miharud) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("kB")?.parse::<f64>()? * 1024.0)
}
