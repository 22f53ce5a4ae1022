#!/usr/bin/env bash
# Two hours of everything that a host does to its daemon, at once; docs/explanation/reliability.md says what and what came of it.
# usage: scripts/soak.sh [--minutes N] [--containers N] [--clients N] [--pace MS]; MIHARU_BIN_DIR names other programs than the released ones.
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
scripts/setup.sh test || echo "soak: going on with what is there"
cargo build -q --release --locked -p miharu-e2e --bin soak
# What is looked at is what is released.
if [ -z "${MIHARU_BIN_DIR:-}" ]; then
  cargo build -q --release --locked -p miharu-daemon -p miharu-cli --bin miharud --bin miharu
  make --no-print-directory agent
fi
target=$(realpath "${CARGO_TARGET_DIR:-target}")
agent=$target/x86_64-unknown-linux-gnu/release/miharu-agent
[ ! -x "$agent" ] || export MIHARU_STATIC_AGENT=$agent

become=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "soak: containers need root, and there is no sudo here"; exit 1; }
  become=(sudo -E env "PATH=$PATH")
fi
# Process numbers inside of the namespaces mean nothing outside, so neither do journals of what has to be cleaned up.
TMPDIR=$(mktemp -d "${TMPDIR:-/var/tmp}/miharu-soak-XXXXXX")
export TMPDIR
chmod 755 "$TMPDIR"
trap '"${become[@]}" rm -rf "$TMPDIR"' EXIT
trap '' INT TERM
# Containers of others are no part of the series.
alone=(scripts/alone.sh)
[ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] || alone=()
"${become[@]}" "${alone[@]}" "$target/release/soak" "$@"
