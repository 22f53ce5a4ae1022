#!/usr/bin/env bash
# Checks licences, versions and sources of what miharu depends on against deny.toml, and known defects where their database can be
# reached. usage: scripts/deny.sh
#
# cargo-deny is the one that is installed, or else the one that scripts/setup.sh has built.
set -u
cd "$(dirname "$0")/.." || exit 1
deny=$(command -v cargo-deny) || deny=${MIHARU_CACHE:-$PWD/target/e2e-cache}/cargo-deny/bin/cargo-deny
[ -x "$deny" ] || { echo "deny: no cargo-deny: scripts/setup.sh deny builds one" >&2; exit 1; }
"$deny" --locked check bans licenses sources || exit 1

# Without the database its check would fail, which says nothing of our dependencies.
database=https://github.com/RustSec/advisory-db
if said=$(GIT_TERMINAL_PROMPT=0 timeout 20 git ls-remote -q "$database" HEAD 2>&1); then
  "$deny" --locked check advisories
else
  echo "deny: known defects (advisories) were NOT checked: $database cannot be reached from here (${said##*$'\n'})"
fi
