//! The cases of `miharu-bench` in time, by criterion.

#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "a benchmark that cannot be set up has no other way to say so"
)]

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(30)
        .configure_from_args();
    for case in miharu_bench::cases().expect("the recorded hosts of miharu-e2e") {
        criterion.bench_function(case.name, |bencher| bencher.iter(|| case.run()));
    }
    criterion.final_summary();
}
