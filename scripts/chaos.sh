#!/usr/bin/env bash
# The long forms of what `make test` does in seconds: thousands of instances at once, a daemon that stands still for a minute, and
# SIGKILL at hundreds of random moments; and all properties on many more inputs. usage: scripts/chaos.sh [TEST…], where a test is what stands
# before :: in the list below, or "properties"; MIHARU_BIN_DIR names other programs than the released ones.
# docs/explanation/reliability.md says what came of it.
set -u
cd "$(dirname "$0")/.." || exit 1
export PATH=$PATH:/usr/sbin:/sbin
# Each is a line: the package, the test program, and which of its tests.
tests=(
  "miharu-e2e resources descriptors:: limited:: crowd:: paused:: clock:: remounted::"
  "miharu-e2e state killed:: calls:: disk::"
  "miharu-e2e live hostile::many:: privileges::without_landlock privileges::where_processes"
  "miharu-e2e network idle::"
)
known="properties"
for line in "${tests[@]}"; do
  read -r _ _ names <<<"$line"
  for name in $names; do known+=" ${name%%::*}"; done
done
for asked in "$@"; do
  [[ " $known " == *" $asked "* ]] || { echo "chaos: there is no '$asked'; there are: $known"; exit 2; }
done
scripts/setup.sh test || echo "chaos: going on with what is there"
# Ten thousand instances are served in time by what is released, so that this is what is looked at.
if [ -z "${MIHARU_BIN_DIR:-}" ]; then
  cargo build -q --release --locked -p miharu-daemon -p miharu-cli --bin miharud --bin miharu || exit 1
  MIHARU_BIN_DIR=$(realpath "${CARGO_TARGET_DIR:-target}")/release
fi
export MIHARU_BIN_DIR MIHARU_CHAOS=1
if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="sudo -n -E env PATH=$PATH"
fi
failed=()
for line in "${tests[@]}"; do
  read -r package program names <<<"$line"
  for name in $names; do
    [ $# -eq 0 ] || [[ " $* " == *" ${name%%::*} "* ]] || continue
    echo "chaos: $program $name"
    run=(cargo test -q --locked -p "$package" --test "$program" -- --test-threads=1 --include-ignored "$name")
    # One that was renamed would pass without having run.
    "${run[@]}" --list | grep -q ': test$' || { failed+=("$program $name: no such test, or not to be built"); continue; }
    "${run[@]}" --nocapture || failed+=("$program $name")
  done
done
# Properties hold for whatever chance gives: more of it than in `make test`, which has the same each time.
if [ $# -eq 0 ] || [[ " $* " == *" properties "* ]]; then
  echo "chaos: properties"
  PROPTEST_CASES=${PROPTEST_CASES:-4000} cargo test -q --workspace --locked --no-fail-fast --lib --bins || failed+=(properties)
fi
[ ${#failed[@]} -eq 0 ] || printf 'chaos: not well: %s\n' "${failed[@]}"
[ ${#failed[@]} -eq 0 ]
