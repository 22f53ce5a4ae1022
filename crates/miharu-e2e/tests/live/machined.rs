//! Machines that are registered with a real systemd-machined.

use anyhow::Result;
use miharu_e2e::machined::Machined;
use miharu_e2e::nspawn::{Nspawn, Registration};
use miharu_e2e::scratch::unique;
use miharu_e2e::{Miharud, need};

#[test]
fn a_registered_machine_is_served_once_under_the_name_that_machined_knows() -> Result<()> {
    need!(Nspawn, Machined);
    let machined = Machined::start()?;
    let (scope, service) = (unique("mh"), unique("mh"));
    // As systemd-nspawn starts one by hand, and as `machinectl start` does.
    let units = [format!("machine-{scope}.scope"), format!("systemd-nspawn@{service}.service")];
    let machines = [
        Nspawn::with(&scope, &units[0], Registration::With(&machined))?,
        Nspawn::with(&service, &units[1], Registration::With(&machined))?,
    ];
    let listed = machined.list()?;
    let daemon = Miharud::start()?;
    let scrape = daemon.scrape()?;
    for machine in &machines {
        assert!(
            listed.contains(&format!("\"{}\" \"container\" \"systemd-nspawn\"", machine.name)),
            "{listed}"
        );
        assert!(machined.record(&machine.name)?.contains(&format!("\nLEADER={}\n", machine.pid)));
        let labels = [("name", machine.name.as_str()), ("project", "nspawn")];
        let info = scrape.select("incus_instance_info", &labels);
        assert_eq!(info.len(), 1, "{}", machine.name);
        assert_eq!(info[0].label("runtime"), "nspawn");
        assert_eq!(scrape.value("incus_instance_scrape_success", &labels)?, 1.0);
        assert!(scrape.value("incus_procs_total", &labels)? >= 1.0);
    }
    // machined's own entry for the host is no machine.
    assert!(listed.contains("\".host\"") && !scrape.instances().contains(".host"));
    let names: Vec<String> = machines.iter().map(|machine| machine.name.clone()).collect();
    drop(machines);
    let left = daemon.scrape()?.instances();
    assert!(names.iter().all(|name| !left.contains(name)), "{left:?}");
    Ok(())
}
