//! Attacks over the network on a real `miharud`, each with scrapers beside it that have to be answered all the while. Everything is
//! on loopback, of which every address from 127.9.0.0 on can be an attacker's; counts and times are bounded.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving openssl, and showing what an attack cost"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod certificates;
mod http2;
mod idle;
mod protocol;
mod rig;
mod slow;
mod storm;
mod unread;
