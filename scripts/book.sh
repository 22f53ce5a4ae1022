#!/usr/bin/env bash
# Makes the book of docs/, English and Japanese, in target/book. usage: scripts/book.sh
# Pictures are taken from target/pictures; where that is not there yet, `make pictures` makes them, unless MIHARU_PICTURES is "off".
set -eu
cd "$(dirname "$0")/.."
# Pinned, so that the same pages give the same book on every machine; below target/, so that nobody's own one is touched.
version=0.5.4
mdbook=target/tools/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
  echo "book: installing mdbook $version into target/tools"
  cargo install -q mdbook --version "$version" --locked --no-default-features --features search --root target/tools
fi
if [ ! -d target/pictures ] && [ "${MIHARU_PICTURES:-}" != off ]; then
  scripts/pictures.sh || echo "book: going on without pictures"
fi

# The pages are copied, so that the pictures, which are not in the repository, can be put into them.
pages=target/book-pages
rm -rf "$pages"
cp -r docs "$pages"
if [ -d target/pictures ]; then
  mkdir "$pages/pictures"
  find target/pictures -maxdepth 1 -type f \( -name '*.svg' -o -name '*.png' \) -exec cp {} "$pages/pictures/" \;
fi
# A line `<!-- picture: NAME: what it shows -->` becomes that picture, or nothing where it was not made.
find "$pages" -name '*.md' | while read -r page; do
  up=$(dirname "${page#"$pages"/}" | sed -E 's|^\.$||; s|[^/]+|..|g; s|$|/|; s|^/$||')
  grep -oE '^<!-- picture: [a-z0-9-]+\.(svg|png): .* -->$' "$page" | sed -E 's/^<!-- picture: ([^:]+):.*/\1/' | while read -r name; do
    [ -e "$pages/pictures/$name" ] || continue
    sed -i -E "s|^<!-- picture: $name: (.*) -->\$|![\1](${up}pictures/$name)|" "$page"
  done
done
"$mdbook" build "$pages" --dest-dir "$PWD/target/book"
echo "book: target/book/index.html"
