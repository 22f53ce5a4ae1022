//! What the clients can ask that miharud does not do: they say why.

use anyhow::Result;
use miharu_e2e::lxd::Kind;
use miharu_e2e::{Client, Lxc, Miharud, need, scratch};

const WHY: &str = "miharu measures instances and does not manage them";

/// `NAME` is a container that runs, `FILE` a file of 4 MiB.
const BOTH: &[&str] = &[
    "launch @bb @x1",
    "stop @NAME",
    "stop @NAME --force",
    "restart @NAME",
    "pause @NAME",
    "exec @NAME ls",
    "rename @NAME other",
    "config set @NAME limits.cpu 1",
    "image list @",
    "image show @bb",
    "image import FILE @",
    "profile list @",
    "profile show @default",
];

fn every_one_says_why(kind: Kind, more: &[&str]) -> Result<()> {
    let (daemon, container) = (Miharud::start()?, Lxc::start(&[])?);
    let file = scratch::dir("image")?.join("image.tar.gz");
    std::fs::write(&file, vec![0; 4 << 20])?;
    let local = Client::local(kind, &daemon.dir)?;
    daemon.listen("core.https_address")?;
    let remote = Client::remote(kind, &local.token("away", "")?)?;
    for client in [&local, &remote] {
        for line in BOTH.iter().chain(more) {
            let line = line.replace("NAME", &container.name).replace("FILE", &file.display().to_string());
            let why = client.fails(&line)?;
            assert!(why.contains("not implemented") && why.contains(WHY), "{line}: {why}");
        }
        // Here the client itself sees that the server lacks the extension.
        for line in ["network list @", "storage list @"] {
            let why = client.fails(line)?;
            assert!(why.contains("API extension") || why.contains(WHY), "{line}: {why}");
        }
    }
    assert!(container.exec("echo there")?.contains("there"), "nothing happened to it");
    Ok(())
}

#[test]
fn lxc_is_told_why() -> Result<()> {
    need!(Lxd, Lxc);
    every_one_says_why(Kind::Lxd, &["snapshot @NAME"])
}

#[test]
fn incus_is_told_why() -> Result<()> {
    need!(Incus, Lxc);
    every_one_says_why(Kind::Incus, &["file pull @NAME/etc/passwd ."])
}
