#!/usr/bin/env bash
# Builds the Debian packages. usage: scripts/packages.sh [--bins DIR --agent FILE] [--version VERSION] [--out DIR]
#
# Without --bins it makes a release build of its own in target/packages/programs by scripts/release.sh, whose programs are the same
# wherever they are built; with it, as the tests do, it packs what is there. The same tree gives the same bytes: every time is that
# of the last commit.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
out=${CARGO_TARGET_DIR:-target}/packages
bins='' agent='' version=''
while [ $# -gt 0 ]; do
  case $1 in
  --bins) bins=$(realpath "$2"); shift 2 ;;
  --agent) agent=$(realpath "$2"); shift 2 ;;
  --version) version=$2; shift 2 ;;
  --out) out=$2; shift 2 ;;
  *) sed -n 's/^# .*usage: /usage: /p' "$0" >&2; exit 2 ;;
  esac
done
command -v dh >/dev/null || { echo "packages: debhelper is missing (apt-get install debhelper)" >&2; exit 1; }

# The workspace says the version. What is not tagged with it comes before it: 0.1.0~git20260102030405.0123456789ab.
epoch=${SOURCE_DATE_EPOCH:-}
release=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
if [ -e .git ] && git rev-parse -q --verify HEAD >/dev/null 2>&1; then
  [ -n "$epoch" ] || epoch=$(git log -1 --format=%ct)
  git tag --points-at HEAD | grep -qx "v$release" ||
    release=$release~git$(date -u -d "@$epoch" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)
fi
[ -n "$version" ] || version=$release-1
export SOURCE_DATE_EPOCH=${epoch:-$(stat -c %Y Cargo.lock)} TZ=UTC LC_ALL=C.UTF-8

mkdir -p "$out"
out=$(realpath "$out")
if [ -z "$bins" ]; then
  echo "packages: building the release"
  scripts/release.sh "$out/programs"
  bins=$out/programs/bin
  agent=$bins/miharu-agent
else
  export DEB_COMPRESSION='-Zgzip -z1'
fi

stage=$out/stage
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/man" "$stage/completions" "$stage/examples" "$stage/docs"
cp -r packaging/debian "$stage/debian"
cp "$bins/miharu" "$bins/miharud" "$agent" "$stage/bin/"
chmod 755 "$stage/bin/"*
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/bin/"*
"$bins/miharu" manual "$stage/man"
"$bins/miharud" --manual >"$stage/man/miharud.8"
cp packaging/miharu-agent.8 "$stage/man/"
"$bins/miharu" completion bash >"$stage/completions/miharu"
"$bins/miharu" completion zsh >"$stage/completions/_miharu"
"$bins/miharu" completion fish >"$stage/completions/miharu.fish"
cp packaging/prometheus.yml packaging/no-sockets.conf "$stage/examples/"
cp -r dashboards "$stage/examples/"
rm -rf "$stage/examples/dashboards/prometheus/tests"
# The pages that messages name, as they are: a reader needs nothing for them.
(cd docs && find . -name '*.md' ! -name SUMMARY.md -exec cp --parents {} "$stage/docs/" \;)
for package in miharu miharu-agent; do
  mkdir -p "$stage/$package"
  scripts/sbom.sh "$package" "$version" >"$stage/$package/sbom.cdx.json"
done
cp packaging/miharud.service "$stage/debian/miharu.miharud.service"
sed 's,/usr/local/bin/,/usr/sbin/,' packaging/miharu-agent.service >"$stage/debian/miharu-agent.service"
cp CHANGELOG.md "$stage/"
# What is new in this version, as the package's own changelog.
{
  printf 'miharu (%s) unstable; urgency=medium\n\n' "$version"
  printf '  * What has changed for users: changelog.gz beside this file.\n'
  printf '\n -- The miharu authors <miharu@localhost>  %s\n' "$(date -u -d "@$SOURCE_DATE_EPOCH" -R)"
} >"$stage/debian/changelog"
# Modes are the packages', not those of a checkout made under another umask.
find "$stage" -type d -exec chmod 755 {} +
find "$stage" -type f ! -path '*/bin/*' ! -name rules -exec chmod 644 {} +
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

(cd "$stage" && DEB_BUILD_OPTIONS='noautodbgsym nostrip' debian/rules binary) >"$out/log" 2>&1 ||
  { tail -n 20 "$out/log" >&2; echo "packages: debhelper failed; all it said is in $out/log" >&2; exit 1; }
rm -f "$stage/../"*.buildinfo "$stage/../"*.changes
rm -rf "$stage"
for package in miharu miharu-agent; do ls "$out/${package}_${version}_"*.deb; done
