#!/usr/bin/env bash
# Runs a cluster of hundreds of members on this machine and measures it: docs/explanation/scale.md gets the table.
# usage: scripts/scale.sh [--members N] [--instances N] [--interval SECONDS] [--quick]
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
scripts/setup.sh test || echo "scale: going on with what is there"
# What is measured is what is released.
cargo build -q --release --locked -p miharu-daemon -p miharu-cli -p miharu-e2e --bin miharud --bin miharu --bin scale
scale=$(realpath "${CARGO_TARGET_DIR:-target}")/release/scale

become=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "scale: network namespaces need root, and there is no sudo here"; exit 1; }
  become=(sudo -E env "PATH=$PATH")
fi
ulimit -n "$(ulimit -Hn)"
"${become[@]}" "$scale" "$@"
