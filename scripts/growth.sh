#!/usr/bin/env bash
# Measures how costs grow: thousands of containers, scrapers, foreign processes, nested cgroups, slow disks.
# usage: scripts/growth.sh [SCENARIO…] [--quick]
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
scripts/setup.sh demo || echo "growth: going on with what is there"
# What is measured is what is released.
cargo build -q --release --locked -p miharu-daemon -p miharu-cli -p miharu-e2e --bin miharud --bin miharu --bin growth
growth=$(realpath "${CARGO_TARGET_DIR:-target}")/release/growth

become=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "growth: containers need root, and there is no sudo here"; exit 1; }
  become=(sudo -E env "PATH=$PATH")
fi
# Process numbers inside of the namespaces mean nothing outside, so neither do journals of what has to be cleaned up.
TMPDIR=$(mktemp -d "${TMPDIR:-/var/tmp}/miharu-growth-XXXXXX")
export TMPDIR
chmod 755 "$TMPDIR"
trap '"${become[@]}" rm -rf "$TMPDIR"' EXIT
trap '' INT TERM
alone=(scripts/alone.sh)
# Processes of others would lose their controllers: there it runs among all others, and counts them.
[ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] || alone=()
"${become[@]}" "${alone[@]}" "$growth" "$@"
