//! Every live test in one program, so that the cgroup v2 guest can run the same tests by taking this one file along.
//! One file a subject; see `miharu_e2e` for the harness.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving runtimes and showing what they say"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod cardinality;
mod cgroup2_guest;
mod chosen;
mod concurrency;
mod daemons;
mod filesystems;
mod gpus;
mod harness;
mod hostile;
mod kept;
mod lxc_figures;
mod lxc_lifecycle;
mod lxc_memory;
mod lxd_compare;
mod machined;
mod nspawn;
mod privileges;
mod prometheus;
mod real_clients;
mod rights;
mod sources;
mod top;
mod trust;
mod tutorial;
mod usage;
mod watching;
mod webui;
