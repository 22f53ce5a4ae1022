//! The listeners: the unix socket, the HTTPS API and the metrics listener.

mod activity;
mod bind;
mod connection;
pub(crate) mod frames;
mod gate;
mod tcp;
mod unix;

#[cfg(test)]
pub(crate) use activity::Protocol;
pub(crate) use connection::{Accepted, Peer, PeerCertificate, Server};
#[cfg(test)]
pub(crate) use gate::{Gate, Limits};
pub(crate) use gate::{Source, Standing};
pub(crate) use tcp::{Listeners, PortHolder};
pub(crate) use unix::UnixListener;

/// Which listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// `unix.socket`.
    Unix,
    /// `core.https_address`.
    Https,
    /// `core.metrics_address`.
    Metrics,
}
