//! How the daemon ends where it cannot start: with a status of its own where each start would end the same way, until somebody acts on
//! what it says. The service manager does not try again then (`RestartPreventExitStatus=` of the unit).

use std::io;

/// What an end is that may pass by itself: a full disk, no descriptors or threads, another daemon that is about to end.
const MAY_PASS: u8 = 1;
/// `EX_CONFIG` of sysexits.h.
const LASTS: u8 = 78;

/// An error that comes again at each start.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct Lasting(pub(crate) anyhow::Error);

/// Says of a failure that it comes again at each start.
pub(crate) trait Lasts<T> {
    /// The same, for a person to mend.
    fn that_lasts(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Lasts<T> for Result<T, E> {
    fn that_lasts(self) -> anyhow::Result<T> {
        self.map_err(|error| Lasting(error.into()).into())
    }
}

/// The status that the daemon ends with.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    let lasts = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Lasting>() || cause.downcast_ref::<io::Error>().is_some_and(|error| stays(error.kind()))
    };
    if error.chain().any(lasts) { LASTS } else { MAY_PASS }
}

/// Whether what the system says of a path is so until somebody changes rights or names. A link may lead to where nothing is mounted
/// yet, and what is read-only may become writable, so that these are none of them.
pub(crate) fn stays(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, PermissionDenied,
    };
    matches!(
        kind,
        AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn what_only_a_person_can_mend_has_a_status_of_its_own() {
        let io = |kind| Err::<(), _>(io::Error::from(kind)).context("the directory").context("the daemon");
        for (kind, expected) in [
            (io::ErrorKind::PermissionDenied, LASTS),
            (io::ErrorKind::NotADirectory, LASTS),
            (io::ErrorKind::StorageFull, MAY_PASS),
            (io::ErrorKind::NotFound, MAY_PASS),
            (io::ErrorKind::ReadOnlyFilesystem, MAY_PASS),
            (io::ErrorKind::WouldBlock, MAY_PASS),
        ] {
            assert_eq!(status(&io(kind).unwrap_err()), expected, "{kind}");
        }
        let lasting = Err::<(), _>(anyhow!("b").context("a")).that_lasts().context("the daemon").unwrap_err();
        assert_eq!((status(&lasting), format!("{lasting:#}").as_str()), (LASTS, "the daemon: a: b"));
        assert_eq!(status(&anyhow!("another miharud is running")), MAY_PASS);
    }
}
