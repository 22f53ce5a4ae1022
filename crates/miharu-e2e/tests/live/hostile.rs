//! A container whose root wants to forge or break the exposition.

use anyhow::Result;
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::{Lxc, Miharud, need, shell};

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

#[test]
fn a_flood_of_interfaces_is_bounded_and_the_neighbour_keeps_its_series() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let (neighbour, lxc) = (Lxc::start(&[])?, Lxc::start(&[])?);
    let before = daemon.scrape()?.samples().filter(|sample| sample.label("name") == neighbour.name).count();
    let commands: String = (0..300).map(|number| format!("link add flood{number} type bridge\n")).collect();
    let batch = miharu_e2e::scratch::dir("batch")?.join("ip");
    std::fs::write(&batch, commands)?;
    let args = ["-t", &lxc.pid.to_string(), "-n", "ip", "-batch", batch.to_str().unwrap()].map(str::to_owned);
    shell::run("nsenter", args)?;
    let scrape = daemon.scrape()?;
    let devices = scrape.select("incus_network_receive_bytes_total", &[("name", &lxc.name)]).len();
    assert!((1..=302).contains(&devices), "{devices} devices");
    let after = scrape.samples().filter(|sample| sample.label("name") == neighbour.name).count();
    assert_eq!(after, before);
    Ok(())
}
