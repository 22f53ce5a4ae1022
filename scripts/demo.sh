#!/usr/bin/env bash
# `make demo` and `make demo-stop`: installs and builds what is missing, then hands over to the demo program.
# usage: scripts/demo.sh start|stop
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
goal=${1:-start}
# Tests that run through sudo have built everything already; root's cargo would leave files that the user cannot replace.
if [ "$goal" = start ] && [ -z "${MIHARU_DEMO_BUILT:-}" ]; then
  scripts/setup.sh demo || echo "demo: going on with what is there"
  echo "Building (the first time takes some minutes)."
  cargo build -q --workspace --bins --locked
fi
program=$(cd "${CARGO_TARGET_DIR:-target}" 2>/dev/null && pwd || true)/debug/demo
[ -x "$program" ] || { echo "No demo runs."; exit 0; }

# Containers need root. Without a terminal nobody could type a password for sudo.
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null 2>&1; then
  if [ -t 0 ]; then exec sudo -E env "PATH=$PATH" "$program" "$goal"; fi
  if sudo -n true 2>/dev/null; then exec sudo -n -E env "PATH=$PATH" "$program" "$goal"; fi
fi
exec "$program" "$goal"
