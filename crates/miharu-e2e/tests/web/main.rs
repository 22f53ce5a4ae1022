//! The web page in a real Chromium, against a real `miharud`: what it shows, how it is operated, and that nothing that others have
//! chosen becomes code in it. Pictures for people are left in `MIHARU_SCREENSHOTS` or `target/screenshots`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving a browser and a daemon, and saying how fast the page was"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod access;
mod cluster;
mod common;
mod few;
mod hostile;
mod https;
mod many;
mod words;
