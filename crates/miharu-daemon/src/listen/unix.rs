//! The unix socket: everything, for whoever may open it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use axum::Router;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::activity::Protocol;
use super::connection::CONNECTIONS;
use super::gate::{Gate, SharedLimits, Source};
use super::tcp::Trouble;
use super::{Accepted, Entrance, Peer, Server};
use crate::ends::Lasts as _;

/// The bound socket.
#[derive(Debug)]
pub(crate) struct UnixListener {
    path: PathBuf,
    listener: tokio::net::UnixListener,
}

/// The socket while it is served.
#[derive(Debug)]
pub(crate) struct ServedUnix {
    path: PathBuf,
    stop: watch::Sender<bool>,
    permits: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl UnixListener {
    /// Binds the socket with mode 0660 and, where it is given, this group. One left by a daemon that is gone is
    /// replaced.
    pub(crate) fn bind(path: &Path, group: Option<u32>) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let listener = tokio::net::UnixListener::bind(path).with_context(|| {
            format!(
                "{}: the socket cannot be made; its directory has to belong to the user that miharud runs as, and to be writable",
                path.display()
            )
        })?;
        if group.is_some() {
            // A service may be forbidden the call itself.
            std::os::unix::fs::chown(path, None, group).with_context(|| group_refused(path, group))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o660))
            .with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), listener })
    }

    pub(crate) fn serve(self, router: Router, limits: SharedLimits) -> ServedUnix {
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let server = Server { router, stop: stopped, permits: Arc::clone(&permits) };
        let accepting = tokio::spawn(accept(self.listener, server, Gate::new(limits)));
        ServedUnix { path: self.path, stop, permits, accepting }
    }
}

impl ServedUnix {
    /// Stops accepting, takes the socket away, and comes back when every connection has ended after what it was doing.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(true);
        self.accepting.abort();
        let _ = self.accepting.await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("{}: {error}", self.path.display());
        }
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _gone = self.permits.acquire_many(all).await;
    }
}

fn group_refused(path: &Path, group: Option<u32>) -> String {
    let group = group.map(|group| group.to_string()).unwrap_or_default();
    format!("{}: it cannot be given to group {group} (without CAP_CHOWN only to an own one)", path.display())
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    // Connecting to a file is refused as well, and one that is none of ours stays.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
        return Err(anyhow!("{} is there and is not a socket: move it away", path.display())).that_lasts();
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another miharud is running: {} answers", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| path.display().to_string())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

async fn accept(listener: tokio::net::UnixListener, server: Server, gate: Arc<Gate>) {
    let mut trouble = Trouble::default();
    loop {
        let Ok(permit) = Arc::clone(&server.permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Who has gone already is nobody in particular.
                let user = stream.peer_cred().map_or(u32::MAX, |cred| cred.uid());
                let Some(ticket) = gate.admit(Source::User(user)) else { continue };
                let peer = Peer { entrance: Entrance::Unix, certificate: None };
                let server = server.clone();
                tokio::spawn(async move {
                    server.serve(Accepted { stream, peer, protocol: Protocol::Http1, ticket }).await;
                    drop(permit);
                });
            }
            Err(error) => trouble.accepting(&error, &listener, &gate).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unix.socket");
        let first = UnixListener::bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let error = UnixListener::bind(&path, None).unwrap_err();
        assert!(error.to_string().starts_with("another miharud is running"), "{error}");
        drop(first);
        UnixListener::bind(&path, None).unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unix.socket");
        std::fs::write(&path, "somebody's").unwrap();
        let error = UnixListener::bind(&path, None).unwrap_err().to_string();
        assert!(error.ends_with("unix.socket is there and is not a socket: move it away"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
    }
}
