//! The harness itself: a member has a name, a network, containers and a clock of its own.

use anyhow::Result;
use miharu_e2e::cluster::Member;
use miharu_e2e::need;
use miharu_e2e::network::{Network, Target};

#[test]
fn a_member_has_a_name_a_network_containers_and_a_clock_of_its_own() -> Result<()> {
    need!(Containers, Tls, Faketime);
    let network = Network::create()?;
    let member = Member::with_clock(&network, "abydos")?;
    let server = member.get("/1.0")?.json()?;
    assert_eq!(server["metadata"]["environment"]["server_name"], "abydos");
    let time = |member: &Member| member.scrape()?.sum("incus_time_seconds", &[("name", "abydos-1")]);
    let before = time(&member)?;
    member.set_clock(-86_400)?;
    let jumped = before - time(&member)?;
    assert!((86_000.0..86_500.0).contains(&jumped), "{jumped}");
    assert_eq!(member.scrape()?.sum("incus_procs_total", &[])?, 2.0 * 2.0);
    let outside = network.host()?;
    let certificate = member.dir.join("server.crt");
    let address = member.metrics_address();
    let target = Target { address: &address, name: "abydos", certificate: &certificate };
    assert_eq!(outside.ask(&target, "/1.0/metrics", None, &[])?.status, 403);
    member.host.cut()?;
    assert!(outside.ask(&target, "/1.0/metrics", None, &["--max-time", "2"]).is_err());
    member.host.mend()?;
    assert_eq!(outside.ask(&target, "/1.0/metrics", None, &[])?.status, 403);
    Ok(())
}
