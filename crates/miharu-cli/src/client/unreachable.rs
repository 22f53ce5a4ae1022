//! Why the daemon's socket cannot be opened, and what to do about it.

use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::Failure;

/// Turns the error of a connect into words that say what to do next.
pub(super) fn explain(socket: &Path, error: &Error) -> Failure {
    let shown = socket.display();
    let dir = socket.parent().unwrap_or(socket).display();
    Failure::request(match error.kind() {
        ErrorKind::NotFound => format!(
            "miharud is not running: there is no socket {shown}.\nStart it (`sudo systemctl start miharud`, or `sudo miharud` where it is no service); if it keeps its state elsewhere than in {dir}, name that directory with --dir or MIHARU_DIR."
        ),
        ErrorKind::ConnectionRefused => format!(
            "miharud is not running: nobody listens on {shown} any more.\nStart it (`sudo systemctl start miharud`, or `sudo miharud` where it is no service); its log says why it stopped."
        ),
        ErrorKind::PermissionDenied => forbidden(socket),
        _ => format!("cannot reach miharud on {shown}: {error}"),
    })
}

/// The group that may open the socket is the one thing that helps; it cannot be seen where the directory is closed.
fn forbidden(socket: &Path) -> String {
    let shown = socket.display();
    let group = std::fs::metadata(socket).ok().map(|meta| {
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        group_name(&groups, meta.gid()).unwrap_or_else(|| meta.gid().to_string())
    });
    match group.as_deref() {
        Some("root") | None => format!(
            "you may not open {shown}: it is for root and for miharud's group.\nRun this with sudo, or let miharud \
             serve a group of yours (`miharud --group GROUP`) and be a member of it."
        ),
        Some(group) => format!(
            "you may not open {shown}: it is for root and the group '{group}'.\nRun this with sudo, or join the group \
             (`sudo usermod -aG {group} $USER`) and log in again."
        ),
    }
}

/// The name of a group in the text of `/etc/group` (group(5): `name:password:gid:members`).
fn group_name(groups: &str, gid: u32) -> Option<String> {
    let gid = gid.to_string();
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_tells_how_to_start() {
        let error = explain(Path::new("/srv/m/unix.socket"), &ErrorKind::NotFound.into()).to_string();
        assert!(error.contains("is not running: there is no socket /srv/m/unix.socket"), "{error}");
        assert!(error.contains("--dir or MIHARU_DIR"), "{error}");
    }

    #[test]
    fn a_stale_socket_tells_that_nobody_listens() {
        let error =
            explain(Path::new("/srv/m/unix.socket"), &ErrorKind::ConnectionRefused.into()).to_string();
        assert!(error.contains("nobody listens on /srv/m/unix.socket"), "{error}");
    }

    #[test]
    fn a_closed_socket_tells_who_may() {
        let error = explain(Path::new("/srv/m/unix.socket"), &ErrorKind::PermissionDenied.into()).to_string();
        assert!(error.contains("--group"), "{error}");
    }

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nmiharu:x:990:alice,bob\nbroken\n";
        assert_eq!(group_name(groups, 990).as_deref(), Some("miharu"));
        assert_eq!(group_name(groups, 0).as_deref(), Some("root"));
        assert_eq!(group_name(groups, 1), None);
    }
}
