//! What is refused, and what goes on. Each test restricts a thread of its own.
#![allow(clippy::disallowed_methods, reason = "a program that is not started is what a test is about")]
#![allow(clippy::print_stderr, reason = "a kernel without Landlock")]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Barrier;

use miharu_collect::host::{Opening, open_below, openings};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::*;
use crate::tls::{Authority, Identity};

/// Does something on a thread that nobody uses afterwards.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Says why nothing was looked at, which is a failure where nothing may be skipped.
fn skipped(why: &str) {
    assert!(
        std::env::var_os("MIHARU_E2E").is_none_or(|value| value != "require"),
        "may not be skipped: {why}"
    );
    eprintln!("not looked at: {why}");
}

fn refused<T: std::fmt::Debug>(result: io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

/// Another process, ended on drop.
struct Other(Child);

impl Other {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    /// Its root, as who looks at an instance sees it.
    fn root(&self) -> String {
        format!("/proc/{}/root", self.0.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_thread_starts_a_program_or_reaches_into_another_process() {
    let other = Other::start();
    apart(|| {
        calls::forbid_for_all().unwrap();
        refused(Command::new("true").spawn());
        let pid = rustix::process::Pid::from_child(&other.0);
        refused(rustix::process::kill_process(pid, rustix::process::Signal::USR1).map_err(io::Error::from));
        refused(rustix::process::chroot("/").map_err(io::Error::from));
        refused(rustix::system::sethostname(b"mine").map_err(io::Error::from));
        refused(
            rustix::fs::mknodat(
                rustix::fs::CWD,
                "/tmp/miharu-device",
                rustix::fs::FileType::CharacterDevice,
                Mode::RUSR,
                0,
            )
            .map_err(io::Error::from),
        );
        // A thread is still to be had, and it is no freer.
        apart(|| refused(Command::new("true").spawn()));
        // What instances are looked at by is left.
        fs::read_link(other.root()).unwrap();
    });
    Command::new("true").status().unwrap();
}

#[test]
fn rights_that_were_put_down_stay_down() {
    apart(|| {
        let before = rustix::thread::capabilities(None).unwrap();
        rights::keep(rights::of_others()).unwrap();
        calls::forbid_changes_of_rights().unwrap();
        let after = rustix::thread::capabilities(None).unwrap();
        assert!(rights::of_others().contains(after.permitted), "{after:?}");
        assert!(!after.effective.contains(CapabilitySet::SYS_PTRACE));
        refused(rustix::thread::set_capabilities(None, before).map_err(io::Error::from));
    });
}

/// What becomes of one measure is no matter of the others.
#[test]
fn who_cannot_put_down_capabilities_writes_nowhere_all_the_same() {
    let base = tempfile::tempdir().unwrap();
    apart(|| {
        calls::forbid_changes_of_rights().unwrap();
        let Outcome::Not(why) = only_read(rights::of_readers()) else { panic!("capset(2) was refused") };
        assert!(why.contains("capset(2)"), "{why}");
        refused(File::create(base.path().join("new")));
    });
}

/// As people put them there: root's, or as links to where only root may go.
#[test]
fn certificates_are_read_that_those_who_answer_may_not_read() {
    let own = rustix::thread::capabilities(None).unwrap();
    if !own.effective.contains(CapabilitySet::DAC_READ_SEARCH) {
        return skipped("needs CAP_DAC_READ_SEARCH");
    }
    assert_eq!(keys::start().unwrap(), Outcome::InForce);
    let (state, closed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = || vec!["host".to_owned()];
    let made = Identity::open(state.path(), names).unwrap().fingerprint();
    for name in ["server.crt", "server.key"] {
        let (link, file) = (state.path().join(name), closed.path().join(name));
        fs::rename(&link, &file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
        symlink(&file, &link).unwrap();
    }
    fs::write(state.path().join("server.ca"), "rubbish").unwrap();
    fs::set_permissions(state.path().join("server.ca"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o000)).unwrap();
    apart(|| {
        rights::keep(CapabilitySet::empty()).unwrap();
        refused(fs::read(state.path().join("server.key")));
        refused(fs::metadata(state.path().join("server.crt")));
        let identity = Identity::open(state.path(), names).unwrap();
        assert_eq!(identity.fingerprint(), made);
        identity.reload();
        let problems = Authority::open(state.path()).problems(std::time::SystemTime::now());
        assert!(problems.concat().contains("no certificate in PEM form"), "{problems:?}");
    });
    assert!(fs::read_link(state.path().join("server.crt")).is_ok(), "the link was replaced");
}

#[test]
fn who_looks_writes_nowhere() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    fs::write(at("file"), "kept").unwrap();
    apart(|| {
        calls::forbid_writing().unwrap();
        refused(File::create(at("new")));
        refused(OpenOptions::new().write(true).open(at("file")));
        refused(OpenOptions::new().append(true).open(at("file")));
        refused(OpenOptions::new().read(true).write(true).open(at("file")));
        refused(OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(at("file")));
        refused(OpenOptions::new().read(true).custom_flags(libc::O_CREAT).open(at("new")));
        refused(fs::create_dir(at("dir")));
        refused(fs::remove_file(at("file")));
        refused(fs::rename(at("file"), at("other")));
        refused(fs::hard_link(at("file"), at("other")));
        refused(symlink("file", at("link")));
        refused(fs::set_permissions(at("file"), Permissions::from_mode(0o777)));
        refused(std::os::unix::fs::chown(at("file"), Some(0), None));
        refused(
            rustix::fs::setxattr(at("file"), "user.x", b"y", rustix::fs::XattrFlags::empty())
                .map_err(io::Error::from),
        );
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "kept");
        fs::read_dir(base.path()).unwrap();
    });
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
}

#[test]
fn openat2_is_left_in_the_ways_that_instances_are_looked_at() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("file"), "kept").unwrap();
    let dir = File::open(base.path()).unwrap();
    assert_eq!(openings().len(), 4);
    apart(|| {
        calls::forbid_writing().unwrap();
        let another = |flags| {
            rustix::fs::openat2(&dir, "file", flags, Mode::empty(), ResolveFlags::BENEATH)
                .map_err(io::Error::from)
        };
        refused(another(OFlags::RDWR));
        refused(another(OFlags::RDONLY));
        for opening in [Opening::PlaceInRoot, Opening::PlaceBeneath, Opening::FileBeneath] {
            open_below(dir.as_fd(), Path::new("file"), opening).unwrap();
        }
        // Whatever is mounted just then on the machine breaks this one off.
        let cached = open_below(dir.as_fd(), Path::new("file"), Opening::PlaceInRootCached);
        assert_ne!(cached.err().map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
    });
}

#[test]
fn all_others_write_in_the_state_directory_alone() {
    let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("file"), "kept").unwrap();
    apart(|| {
        if let Outcome::Not(why) = files::confine(state.path()).unwrap() {
            return skipped(&why);
        }
        let own = |name: &str| state.path().join(name);
        fs::write(own("draft"), "new").unwrap();
        fs::rename(own("draft"), own("file")).unwrap();
        drop(UnixListener::bind(own("unix.socket")).unwrap());
        fs::remove_file(own("unix.socket")).unwrap();
        let another = |name: &str| elsewhere.path().join(name);
        refused(File::create(another("new")));
        refused(OpenOptions::new().write(true).open(another("file")));
        refused(fs::remove_file(another("file")));
        refused(fs::create_dir(another("dir")));
        refused(UnixListener::bind(another("socket")));
        assert_eq!(fs::read_to_string(another("file")).unwrap(), "kept");
    });
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

/// A device that appears when its driver is loaded, long after the start.
#[test]
fn who_opens_devices_writes_to_what_is_there_and_makes_nothing() {
    let other = Other::start();
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    let (restricted, appeared) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            calls::forbid_for_all().unwrap();
            let outcome = only_open_devices();
            restricted.wait();
            appeared.wait();
            assert_eq!(outcome, Outcome::InForce);
            OpenOptions::new().read(true).write(true).open(at("nvidia0")).unwrap();
            refused(File::create(at("new")));
            refused(OpenOptions::new().write(true).truncate(true).open(at("nvidia0")));
            refused(fs::remove_file(at("nvidia0")));
            refused(fs::rename(at("nvidia0"), at("other")));
            refused(fs::set_permissions(at("nvidia0"), Permissions::from_mode(0o777)));
            refused(Command::new("true").spawn());
            let own = rustix::thread::capabilities(None).unwrap();
            assert!(rights::of_devices().contains(own.permitted), "{own:?}");
            // The memory of a process that has more rights.
            if rustix::process::geteuid().is_root() {
                refused(OpenOptions::new().write(true).open("/proc/1/mem"));
            }
            // Whose a process is can be told.
            fs::read(format!("/proc/{}/cgroup", other.0.id())).unwrap();
        });
        restricted.wait();
        fs::write(at("nvidia0"), "kept").unwrap();
        appeared.wait();
    });
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(at("nvidia0")).unwrap(), "kept");
}

/// Why there are two kinds of threads.
#[test]
fn who_is_under_landlock_sees_no_instance_from_inside() {
    let other = Other::start();
    let dir = tempfile::tempdir().unwrap();
    fs::read_link(other.root()).unwrap();
    apart(|| {
        if let Outcome::Not(why) = files::confine(dir.path()).unwrap() {
            return skipped(&why);
        }
        refused(fs::read_link(other.root()));
        refused(fs::read_dir(format!("{}/", other.root())));
        // Its own process is not another one.
        fs::read_link("/proc/self/root").unwrap();
    });
}
