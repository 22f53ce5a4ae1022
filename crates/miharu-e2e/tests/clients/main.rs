//! The real clients against miharud, over its socket and as a remote over HTTPS: `lxc`, `incus` and `pylxd`. What they are
//! answered is compared with what the real LXD and the real Incus answer to the same commands.
#![allow(clippy::disallowed_methods, reason = "driving clients from outside is what this is for")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod alike;
mod events;
mod python;
mod trust;
mod unmanaged;
mod warnings;
