//! Regular files that can be opened, and of which no reading ever ends.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::forgery::Forgery;
use miharu_e2e::fuse::{FILE, Slow};
use miharu_e2e::scratch::{self, Entry, Note, unique};
use miharu_e2e::vm::Config;
use miharu_e2e::vsock::Vsock;
use miharu_e2e::{Podman, Vm, cgroup, need, shell};

use super::Scene;
use super::devices::{Folder, somebody};
use super::filesystems::{Silence, replace};

/// Puts the file of that file system in the place of another one.
fn lay(slow: &Slow, place: &Path) -> Result<Note> {
    fs::write(place, "")?;
    let place = place.to_str().context("a path that is no UTF-8")?;
    let note = Entry::Mount(place).note()?;
    shell::run("mount", ["--bind", &slow.path.join(FILE).display().to_string(), place])?;
    Ok(note)
}

/// Waits for something that is looked at together with the witness, of which nothing may be lost meanwhile.
fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    shell::wait_for(what, Duration::from_secs(40), || match holds() {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    })?
}

/// A podman of a user's who is named in `instances.rootless`, that never comes to an end with its list, nor with its database.
struct Users {
    id: String,
    slice: String,
    forgery: Option<Forgery>,
    _laid: [Note; 2],
    _folder: Folder,
}

impl Users {
    fn start(scene: &Scene, slow: &Slow, (user, uid, home): &(String, u32, PathBuf)) -> Result<Self> {
        let folder = Folder::make(home.join(unique("mh")), *uid)?;
        let id = format!("{:08x}", std::process::id()).repeat(8);
        let containers = folder.path.join("overlay-containers");
        fs::create_dir_all(containers.join(&id))?;
        for place in [&containers, &containers.join(&id)] {
            chown(place, Some(*uid), Some(*uid))?;
        }
        let lists = [containers.join("containers.json"), folder.path.join("db.sql")];
        let laid = [lay(slow, &lists[0])?, lay(slow, &lists[1])?];
        scene.daemon.miharu(&["config", "set", "instances.rootless", user])?;
        let slice = unique("mhread");
        let bundle = containers.join(&id).join("userdata").display().to_string();
        let line = ["/usr/bin/conmon", "--api-version", "1", "-c", &id, "-b", &bundle, "-n", "mhread"];
        let forgery = Forgery::start(&uid.to_string(), &format!("{slice}/libpod-{id}.scope"), &line)?;
        Ok(Self { id, slice, forgery: Some(forgery), _laid: laid, _folder: folder })
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.forgery = None;
        for hierarchy in cgroup::hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.slice));
        }
    }
}

/// A machine of Incus', whose guest is never reached, as the certificate of its agent is never read.
fn machine(slow: &Slow, device: &Vsock) -> Result<(Vm, String, Note)> {
    let name = unique("mhcert");
    let state = scratch::dir("state")?;
    let (logs, kept) = (state.join("logs").join(&name), state.join("virtual-machines").join(&name));
    for dir in [&logs, &kept, &state.join("guestapi")] {
        fs::create_dir_all(dir)?;
    }
    // By these it is a state directory.
    fs::write(state.join("unix.socket"), "")?;
    let laid = lay(slow, &kept.join("agent.crt"))?;
    let pidfile = logs.join("qemu.pid").display().to_string();
    let arguments = [device.arguments("16M"), vec!["-pidfile".into(), pidfile]].concat();
    let vm = Vm::halted(&Config { name: format!("qemu-{name}"), arguments, ..Config::default() })?;
    Ok((vm, name, laid))
}

#[test]
fn files_that_can_be_opened_and_never_be_read_cost_nobody_else_anything() -> Result<()> {
    need!(Lxc, Podman, Qemu, Vsock);
    let owner = somebody()?;
    let (of_user, of_root, of_agent) = (Slow::of(owner.1)?, Slow::mount()?, Slow::mount()?);
    let podman = Podman::start()?;
    let hung = podman.any(&[])?;
    let device = Vsock::start()?;
    let scene = Scene::start()?;
    let address = scene.daemon.listen("core.metrics_address")?;
    // SQLite itself reads a database of root's, in the process that has one of its own.
    let _laid = lay(&of_root, &podman.home.join("storage/db.sql"))?;
    let slow = [&of_user, &of_root, &of_agent];
    let silences = slow.map(Silence::of).into_iter().collect::<Result<Vec<_>>>()?;
    let users = Users::start(&scene, &of_user, &owner)?;
    let (_machine, machine, _certificate) = machine(&of_agent, &device)?;
    for slow in slow {
        until("who reads", || scene.look().map(|_| slow.readers() > 0))?;
    }
    scene.daemon.miharu(&["config", "set", "user.silent", "yes"])?;
    let there = scene.look()?.instances();
    let id = |id: &str| id.chars().take(12).collect::<String>();
    ensure!(there.contains(&machine), "the machine is not served: {there:?}");
    for words in [
        [&id(&users.id), "nobody answers in time"],
        [&id(&hung.id), "nobody answers in time"],
        [&machine, "certificates"],
    ] {
        until("a warning", || scene.look().and_then(|_| scene.is_warned(&words)))
            .or_else(|_| scene.expect_warning(&words))?;
    }
    let hung = id(&hung.id);
    until(&hung, || Ok(scene.look()?.instances().contains(&hung)))?;
    replace(&scene, &silences, &address)
}
