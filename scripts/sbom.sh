#!/usr/bin/env bash
# What a package is made of, as a CycloneDX document on standard output. usage: scripts/sbom.sh PACKAGE VERSION
#
# PACKAGE is the Debian package, miharu or miharu-agent. Cargo itself tells what it links into the package's programs, with the features
# that a release has; the lock file tells the checksums. cargo-cyclonedx was tried and left: it looks at the features of the whole
# workspace, so that it names crates that are in no program, and writes the builder's paths down. Wants jq.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
case ${1:-} in
miharu) programs='miharu-cli miharu-daemon' ;;
miharu-agent) programs=miharu-agent ;;
*) sed -n 's/^# .*usage: /usage: /p' "$0" >&2; exit 2 ;;
esac
command -v jq >/dev/null || { echo "sbom: jq is missing (apt-get install jq)" >&2; exit 1; }
target=$(rustc --print host-tuple)

packages=()
for program in $programs; do packages+=(-p "$program"); done
tree() { # edges use
  local lines
  lines=$(cargo tree --locked --quiet "${packages[@]}" -e "$1" --target "$target" --prefix depth --format $'\t{p}\t{l}\t{r}')
  # Behind a line that stands for one further up is a star.
  printf '%s\n' "$lines" | sed -e '/^$/d' -e 's/ (\*)$//' -e "s/\$/\t$2/"
}
# What Cargo found in the registry, and what of it is another project's code, which has versions and defects of its own.
source_of() { # crate
  local manifest
  manifest=$(cargo metadata --locked --quiet --format-version 1 --filter-platform "$target" |
    jq -r --arg name "$1" '.packages[] | select(.name == $name) | .manifest_path' | head -n 1)
  dirname "$manifest"
}
parts='[]'
part() { # name version licence page within
  [ -n "$2" ] || { echo "sbom: cannot tell which version of $1 is in ${5:-the programs}" >&2; exit 1; }
  parts=$(jq -c --arg name "$1" --arg version "$2" --arg licence "$3" --arg page "$4" --arg within "$5" \
    '. + [{type: "library", $name, $version, licenses: [{expression: $licence}], externalReferences: [{type: "website", url: $page}], $within}]' <<<"$parts")
}
linked=$(tree normal,no-proc-macro linked)
if [ "$1" = miharu ]; then
  part SQLite "$(sed -n 's/^#define SQLITE_VERSION  *"\(.*\)"/\1/p' "$(source_of libsqlite3-sys)/sqlite3/sqlite3.h")" \
    blessing https://sqlite.org libsqlite3-sys
  part zstd "$(awk '$1 ~ /^[0-9]+$/ && $2 == "zstd-sys" {sub(/.*\+zstd\./, "", $3); print $3; exit}' <<<"$linked")" \
    'BSD-3-Clause OR GPL-2.0-only' https://facebook.github.io/zstd zstd-sys
  part uPlot "$(sed -n 's/.*leeoniya\/uPlot (v\([0-9.]*\)).*/\1/p' crates/miharu-daemon/ui/vendor/uPlot.esm.js)" \
    MIT https://github.com/leeoniya/uPlot miharu-daemon
fi
part std "$(rustc --version | cut -d ' ' -f 2)" 'MIT OR Apache-2.0' https://www.rust-lang.org ''
# The agent is one static program, so that the C library is in it.
if [ "$1" = miharu-agent ]; then
  part glibc "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" LGPL-2.1-or-later https://www.gnu.org/software/libc ''
  part libgcc "$(cc -dumpfullversion)" 'GPL-3.0-or-later WITH GCC-exception-3.1' https://gcc.gnu.org ''
fi
checksums=$(awk -F'"' '/^name = /{name = $2} /^version = /{version = $2} /^checksum = /{print name, version, $2}' Cargo.lock)
{ printf '%s\n' "$linked"; tree normal,build build; } |
  jq -R -s --arg name "$1" --arg version "${2:?}" --arg target "$target" --arg checksums "$checksums" --argjson parts "$parts" \
    --arg time "$(date -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" +%Y-%m-%dT%H:%M:%SZ)" \
    --argjson programs "$(printf '%s\n' $programs | jq -R . | jq -s -c .)" -f scripts/sbom.jq
