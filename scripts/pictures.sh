#!/usr/bin/env bash
# Makes the pictures of the book in target/pictures, from a live run: the terminal, the web page, and charts of what was measured.
# usage: scripts/pictures.sh
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
cargo build -q --locked -p miharu-daemon -p miharu-cli -p miharu-e2e --bin miharud --bin miharu --bin pictures
target=$(realpath "${CARGO_TARGET_DIR:-target}")
pictures=$PWD/target/pictures
mkdir -p "$pictures"
become=()
if [ "$(id -u)" -ne 0 ]; then
  # Without root no container can be started; the charts are drawn all the same.
  if sudo -n true 2>/dev/null; then become=(sudo -n -E env "PATH=$PATH"); fi
fi
"${become[@]}" "$target/debug/pictures" "$pictures"
# Those of the web page are made by its own tests, in a browser; its charts want some minutes to show.
export MIHARU_PICTURE_SECONDS=${MIHARU_PICTURE_SECONDS:-300}
if command -v chromium >/dev/null; then
  MIHARU_SCREENSHOTS=$pictures "${become[@]}" cargo test -q --locked -p miharu-e2e --test web ||
    echo "pictures: none of the web page, as its tests do not pass here"
else
  echo "pictures: none of the web page, as there is no chromium"
fi
