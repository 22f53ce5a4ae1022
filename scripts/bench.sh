#!/usr/bin/env bash
# Measures what a scrape costs, beside the floor and beside what others use. usage: scripts/bench.sh [options of the bench program]
# Without options everything is measured, in less than a quarter of an hour, and docs/explanation/performance.md gets its tables.
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
MIHARU_CACHE=${MIHARU_CACHE:-$PWD/target/e2e-cache}
export MIHARU_CACHE
scripts/setup.sh bench || echo "bench: going on with what is there"

# What is measured is what is released.
cargo build -q --release --locked -p miharu-daemon -p miharu-cli -p miharu-e2e --bin miharud --bin miharu --bin bench
bench=$(realpath "${CARGO_TARGET_DIR:-target}")/release/bench

[ $# -gt 0 ] || set -- --out docs/explanation/performance --page docs/explanation/performance.md
become=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "bench: containers need root, and there is no sudo here"; exit 1; }
  become=(sudo -E env "PATH=$PATH")
fi
# Process numbers inside of the namespaces mean nothing outside, so neither do journals of what has to be cleaned up.
TMPDIR=$(mktemp -d "${TMPDIR:-/var/tmp}/miharu-bench-XXXXXX")
export TMPDIR
chmod 755 "$TMPDIR"
trap '"${become[@]}" rm -rf "$TMPDIR"' EXIT
trap '' INT TERM
status=0
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
  "${become[@]}" scripts/alone.sh "$bench" "$@" || status=$?
else
  # Processes of others would lose their controllers: there the benchmark runs among all others, and counts them.
  "${become[@]}" "$bench" "$@" || status=$?
fi
exit $status
