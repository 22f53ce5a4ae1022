//! Every live test in one program, so that the cgroup v2 guest can run the same tests by taking this one file along.
//! One file a subject; see `miharu_e2e` for the harness.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving runtimes and showing what they say"
)]

mod cgroup2_guest;
mod harness;
mod lxd_compare;
