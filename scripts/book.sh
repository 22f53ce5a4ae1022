#!/usr/bin/env bash
# Makes the book of docs/, English and Japanese, in target/book. usage: scripts/book.sh
set -eu
cd "$(dirname "$0")/.."
# Pinned, so that the same pages give the same book on every machine; below target/, so that nobody's own one is touched.
version=0.5.4
mdbook=target/tools/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
  echo "book: installing mdbook $version into target/tools"
  cargo install -q mdbook --version "$version" --locked --no-default-features --features search --root target/tools
fi
"$mdbook" build docs
echo "book: target/book/index.html"
