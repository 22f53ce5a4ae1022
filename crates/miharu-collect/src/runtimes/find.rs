//! Which daemons of Incus and LXD run on the host, told by the sockets that somebody listens on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use miharu_linux::read::Buffer;
use miharu_linux::{Roots, unix_sockets};

use super::is_trusted;

/// The sockets that a daemon gives to its guests, below its state directory. The daemon itself makes and opens them, while
/// `unix.socket` may be systemd's: asking there would start a daemon that does not run.
const OF_GUESTS: [(&str, &str); 2] = [("guestapi/sock", "incus"), ("devlxd/sock", "lxd")];

/// Where daemons keep their run state, and the state directory that belongs to it. Their guests' sockets may be there, too.
const RUN_STATE: [(&str, &str); 2] = [("/run/incus", "/var/lib/incus"), ("/run/lxd", "/var/lib/lxd")];

/// The daemon's own socket, in its state directory.
pub(super) const SOCKET: &str = "unix.socket";

/// The most daemons of one host.
const MAX_DAEMONS: usize = 8;

/// The state directories of the daemons that run, and whose they are.
///
/// # Errors
/// Where the host's table of sockets cannot be read.
pub(super) fn running(
    roots: &Roots,
    buffer: &mut Buffer,
) -> miharu_linux::Result<BTreeMap<PathBuf, &'static str>> {
    let mut found = BTreeMap::new();
    unix_sockets::each_listening(roots, buffer, |path| {
        if let Some((directory, runtime)) = daemon(path)
            && found.len() < MAX_DAEMONS
            && belongs_to_root(roots, directory)
        {
            found.insert(directory.to_owned(), runtime);
        }
    })?;
    Ok(found)
}

/// The state directory that a guests' socket is in, and whose that is.
fn daemon(path: &[u8]) -> Option<(&Path, &'static str)> {
    let path = Path::new(OsStr::from_bytes(path));
    OF_GUESTS.iter().find_map(|(socket, runtime)| {
        let directory = path.ends_with(socket).then(|| path.parent()?.parent())??;
        let state = RUN_STATE.iter().find(|(run, _)| directory == Path::new(run));
        Some((state.map_or(directory, |(_, state)| Path::new(state)), *runtime))
    })
}

/// Whether the directory and the daemon's socket in it are root's. Others can listen on whatever path they may write to.
fn belongs_to_root(roots: &Roots, directory: &Path) -> bool {
    let Some(place) = roots.host_path(directory) else { return false };
    let is_directory = place.symlink_metadata().is_ok_and(|m| m.is_dir() && is_trusted(m.uid()));
    let socket = place.join(SOCKET).symlink_metadata();
    is_directory && socket.is_ok_and(|m| m.file_type().is_socket() && is_trusted(m.uid()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_is_one_that_listens_for_its_guests() {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        let line = |path: &str| format!("0: 00000002 00000000 00010000 0001 01 1 {path}\n");
        let table: String = [
            "/run/incus/guestapi/sock",
            "/srv/lxd/devlxd/sock",
            "/var/lib/asleep/unix.socket",
            "/nowhere/guestapi/sock",
            "/x/notguestapi/sock",
        ]
        .map(line)
        .concat();
        fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        fs::write(base.path().join("proc/1/net/unix"), table).unwrap();
        for directory in ["var/lib/incus", "srv/lxd", "var/lib/asleep", "x"] {
            let directory = base.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            drop(UnixListener::bind(directory.join(SOCKET)).unwrap());
        }
        let found = running(&roots, &mut Buffer::new()).unwrap();
        let expected = [("/srv/lxd", "lxd"), ("/var/lib/incus", "incus")];
        assert_eq!(found, expected.map(|(path, runtime)| (PathBuf::from(path), runtime)).into());
        // A file in the socket's place is no daemon.
        fs::remove_file(base.path().join("srv/lxd").join(SOCKET)).unwrap();
        fs::write(base.path().join("srv/lxd").join(SOCKET), "").unwrap();
        assert_eq!(running(&roots, &mut Buffer::new()).unwrap().len(), 1);
    }
}
