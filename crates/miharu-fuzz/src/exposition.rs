//! The strict reader of expositions that the tests against real runtimes have; that crate's other dependencies are not needed here.

#![allow(dead_code, unreachable_pub, reason = "it is written for others, too")]

#[path = "../../miharu-e2e/src/exposition.rs"]
mod read;

pub(crate) use read::Exposition;
