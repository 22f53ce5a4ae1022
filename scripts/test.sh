#!/usr/bin/env bash
# Runs everything and says in its last line how it went. usage: scripts/test.sh
# With MIHARU_E2E=require a live test that cannot run here is a failure instead of a skip.
set -u
cd "$(dirname "$0")/.." || exit 1
export PATH=$PATH:/usr/sbin:/sbin
scripts/setup.sh test || echo "test: going on with what is there"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()
step() { # name command…
  echo "test: $1"
  "${@:2}" || failed+=("$1")
}

step "cargo fmt" cargo fmt --all --check
step "cargo clippy" cargo clippy -q --workspace --all-targets --locked -- -D warnings
command -v cargo-deny >/dev/null 2>&1 && step "cargo deny" cargo deny --offline check bans licenses sources

# The live tests start these two; cargo builds them for nobody by itself.
step "cargo build" cargo build -q --workspace --bins --locked
# In the guests runs the agent that users install.
step "make agent" make --no-print-directory agent
agent=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/release/miharu-agent
[ -x "$agent" ] && MIHARU_STATIC_AGENT=$(realpath "$agent") && export MIHARU_STATIC_AGENT

# Containers need root: where sudo gives it without asking, the tests run through it.
if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -n -E env PATH=$PATH"
fi
export MIHARU_E2E_SKIPS=$work/skips
: >"$MIHARU_E2E_SKIPS"
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$work/output"
[ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("cargo test")

# A skipped live test returns early, which cargo counts as passed.
skipped=$(sort -u "$MIHARU_E2E_SKIPS" | grep -c . || true)
read -r passed broken ignored < <(awk '/^test result:/ {p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}' "$work/output")
reasons=$(sed 's/^[^:]*\(::[^:]*\)*: //' "$MIHARU_E2E_SKIPS" | sort | uniq -c | awk '{n = $1; $1 = ""; printf "%s%d:%s", sep, n, $0; sep = "; "}')
[ ${#failed[@]} -eq 0 ] || printf 'test: not well: %s\n' "${failed[*]}"
printf '%d passed, %d failed, %d skipped%s\n' $((passed - skipped)) "$broken" $((skipped + ignored)) "${reasons:+ ($reasons)}"
[ ${#failed[@]} -eq 0 ]
