#!/usr/bin/env bash
# Builds the programs that are released. usage: scripts/release.sh [--agent] OUT
#
# The same tree gives the same bytes wherever it, cargo's home and OUT lie: no path of this machine is left in a program, whether
# the compiler of Rust or that of C has seen it. scripts/reproducible.sh checks that. With --agent only miharu-agent is built.
# They are in OUT/bin then; the rest of OUT is cargo's, and `make agent` gives it its own folder.
set -eu
cd "$(dirname "$0")/.."
agent=no
[ "${1:-}" != --agent ] || { agent=only; shift; }
[ $# -eq 1 ] || { sed -n 's/^# .*usage: /usage: /p' "$0" >&2; exit 2; }
mkdir -p "$1/bin"
out=$(realpath "$1")
target=$(rustc --print host-tuple)
home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")

# What comes last counts first: OUT may lie in the tree.
rust=() c=''
remap() { # path name
  rust+=("--remap-path-prefix=$1=$2")
  c="$c -ffile-prefix-map=$1=$2"
}
remap "$PWD" /miharu
remap "${CARGO_HOME:-$HOME/.cargo}" /cargo
remap "$home" /cargo
remap "$(rustc --print sysroot)" /rust
remap "$out" /out
export CFLAGS="${CFLAGS:-}$c" CARGO_INCREMENTAL=0

# This variable goes before RUSTFLAGS, which somebody may have set for all builds, and takes paths with spaces.
build() { # folder further-flag arguments…
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${rust[*]}${2:+$IFS$2}") CARGO_TARGET_DIR=$1 \
    cargo build -q --release --locked --target "$target" "${@:3}"
}
build "$out" -Ctarget-feature=+crt-static -p miharu-agent
cp "$out/$target/release/miharu-agent" "$out/bin/"
[ "$agent" = only ] && exit
build "$out/dynamic" '' -p miharu-daemon -p miharu-cli
cp "$out/dynamic/$target/release/"{miharud,miharu} "$out/bin/"
