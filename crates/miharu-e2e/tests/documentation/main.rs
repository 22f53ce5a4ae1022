//! Holds the pages of docs/ and those at the top to what there is: links, anchors, translations, server keys. Nothing here asks
//! the network. What the pages show of the command line is checked in miharu-cli, and the tutorial is run in `live`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod api;
mod keys;
mod links;
mod pages;
mod translations;
