//! `pylxd` over the socket and over HTTPS.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Lxc, Miharud, need, shell};

/// Arguments: the endpoint, the name of a container, and over HTTPS the files of the client and of the server.
const SCRIPT: &str = r#"
import sys
import pylxd
endpoint, name, *files = sys.argv[1:]
options = {"cert": tuple(files[:2]), "verify": files[2]} if files else {}
client = pylxd.Client(endpoint=endpoint, **options)
assert client.trusted, client.host_info
assert client.host_info["environment"]["server"] == "miharu", client.host_info
assert client.has_api_extension("metrics")
assert name in [instance.name for instance in client.instances.all()]
assert name in [container.name for container in client.containers.all()]
instance = client.instances.get(name)
assert instance.status == "Running", instance.status
state = instance.state()
assert state.pid > 0 and state.processes > 0 and state.memory["usage"] > 0, vars(state)
assert "lo" in state.network and "usage" in state.cpu, vars(state)
trusted = [certificate.fingerprint for certificate in client.certificates.all()]
assert len(trusted) == 1 and client.certificates.get(trusted[0]).fingerprint == trusted[0]
assert "default" in [project.name for project in client.projects.all()]
try:
    instance.stop()
    sys.exit("it was stopped")
except pylxd.exceptions.LXDAPIException as error:
    assert "does not manage them" in str(error), error
try:
    client.instances.get("nobody")
    sys.exit("there is nobody")
except pylxd.exceptions.NotFound:
    pass
print("well")
"#;

fn run(args: &[&Path]) -> Result<()> {
    let mut command = Command::new(need::cache().join("pylxd/bin/python"));
    command.args(["-W", "ignore", "-c", SCRIPT]).args(args);
    // They would make requests look for another authority, or ask a proxy.
    for name in
        ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"]
    {
        command.env_remove(name);
    }
    assert_eq!(shell::output(&mut command)?, "well\n");
    Ok(())
}

#[test]
fn pylxd_lists_instances_and_certificates() -> Result<()> {
    need!(Pylxd, Lxc, Tls);
    let (daemon, container) = (Miharud::start()?, Lxc::start(&[])?);
    let address = daemon.listen("core.https_address")?;
    let client = Certificate::create("client")?;
    daemon.miharu(&["config", "trust", "add-certificate", &client.crt.display().to_string()])?;
    let name = Path::new(&container.name);
    run(&[&daemon.dir.join("unix.socket"), name])?;
    let endpoint = format!("https://{address}");
    run(&[Path::new(&endpoint), name, &client.crt, &client.key, &daemon.dir.join("server.crt")])
}
