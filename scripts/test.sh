#!/usr/bin/env bash
# Runs everything and says in its last line how it went. usage: scripts/test.sh
# With MIHARU_E2E=require a live test that cannot run here is a failure instead of a skip.
set -u
cd "$(dirname "$0")/.." || exit 1
export PATH=$PATH:/usr/sbin:/sbin

work=$(mktemp -d)
trap 'kill ${setup:-} ${clippy:-} ${deny:-} 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
failed=()
# What is found by chance is looked for by `make chaos` and `make fuzz`: here the same tree gives the same result.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261122}
# What only the tests need comes while the compiler works; what the compiler needs has to be there before.
scripts/setup.sh build || echo "test: going on with what is there"
scripts/setup.sh test &
setup=$!
step() { # name command…
  echo "test: $1"
  "${@:2}" || failed+=("$1")
}

step "cargo fmt" cargo fmt --all --check

# The live tests start miharud and miharu; cargo builds them for nobody by itself. With the tests in one go all that they share is
# compiled once: tests ask for more features of some crates, which would make them others.
step "cargo build" cargo build -q --workspace --bins --tests --locked
# In the guests runs the agent that users install.
step "make agent" make --no-print-directory agent
agent=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/release/miharu-agent
[ -x "$agent" ] && MIHARU_STATIC_AGENT=$(realpath "$agent") && export MIHARU_STATIC_AGENT

wait "$setup" || echo "test: going on with what is there"

mkdir "$work/programs"
step "cargo test --no-run" scripts/lanes.sh --record "$work/programs"
# Live tests wait more than they work, and what they leave is enough for this.
nice -n 19 cargo clippy -q --workspace --all-targets --locked -- -D warnings >"$work/clippy" 2>&1 &
clippy=$!
nice -n 19 bash -c 'scripts/setup.sh deny; scripts/deny.sh' >"$work/deny" 2>&1 &
deny=$!
export MIHARU_E2E_SKIPS=$work/skips
: >"$MIHARU_E2E_SKIPS"
step "test programs" scripts/lanes.sh "$work/programs" "$work/output"
ended() { wait "$1"; local status=$?; cat "$2"; return $status; } # process report
step "cargo clippy" ended "$clippy" "$work/clippy"
step "cargo deny" ended "$deny" "$work/deny"

# A skipped live test returns early, which cargo counts as passed.
skipped=$(sort -u "$MIHARU_E2E_SKIPS" | grep -c . || true)
read -r passed broken ignored < <(awk '/^test result:/ {p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}' "$work/output")
reasons=$(sed 's/^[^:]*\(::[^:]*\)*: //' "$MIHARU_E2E_SKIPS" | sort | uniq -c | awk '{n = $1; $1 = ""; printf "%s%d:%s", sep, n, $0; sep = "; "}')
[ ${#failed[@]} -eq 0 ] || printf 'test: not well: %s\n' "${failed[*]}"
[ "$ignored" -eq 0 ] || reasons+="${reasons:+; }$ignored: long, in make chaos"
printf '%d passed, %d failed, %d skipped%s\n' $((passed - skipped)) "$broken" $((skipped + ignored)) "${reasons:+ ($reasons)}"
[ ${#failed[@]} -eq 0 ]
