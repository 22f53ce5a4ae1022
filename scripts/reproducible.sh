#!/usr/bin/env bash
# Builds the released programs of the last commit twice, in folders of other names and depths, with another home of cargo's, another
# time zone and another language, and compares them byte by byte. usage: scripts/reproducible.sh [--agent] [FOLDER]
#
# With --agent only miharu-agent. FOLDER, target/reproducible unless told, gets both results and is emptied first.
set -eu
cd "$(dirname "$0")/.."
only=''
[ "${1:-}" != --agent ] || { only=--agent; shift; }
[ $# -le 1 ] || { sed -n 's/^# .*usage: /usage: /p' "$0" >&2; exit 2; }
work=${1:-${CARGO_TARGET_DIR:-target}/reproducible}
rm -rf "$work"
mkdir -p "$work"
work=$(realpath "$work")
cargo_home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")

# What cargo has fetched is the same for both; where it lies is not.
mkdir -p "$work/another/home/of-cargo"
for entry in "$cargo_home"/*; do ln -s "$entry" "$work/another/home/of-cargo/"; done

build() { # folder variables…
  git clone -q --no-checkout . "$1/miharu"
  git -C "$1/miharu" checkout -q --detach "$commit"
  env "${@:2}" "$1/miharu/scripts/release.sh" $only "$1/result"
}
# Others may commit meanwhile.
commit=$(git rev-parse HEAD)
echo "reproducible: building ${commit:0:12}"
build "$work/one" TZ=UTC LC_ALL=C.UTF-8
echo "reproducible: building it again, elsewhere"
build "$work/another/folder/deeper/down" TZ=Asia/Tokyo LC_ALL=C "CARGO_HOME=$work/another/home/of-cargo"

failed=0
for one in "$work/one/result/bin/"*; do
  name=$(basename "$one")
  if said=$(cmp "$one" "$work/another/folder/deeper/down/result/bin/$name" 2>&1); then
    echo "reproducible: $(sha256sum "$one" | cut -d ' ' -f 1) $name, $(stat -c %s "$one") bytes, twice"
  else
    echo "reproducible: $name is another one the second time: $said" >&2
    failed=1
  fi
  for path in "$work" "$cargo_home"; do
    ! grep -aqF -e "$path/" "$one" || { echo "reproducible: $name names $path" >&2; failed=1; }
  done
done
exit $failed
