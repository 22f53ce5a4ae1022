#!/usr/bin/env bash
# Which lines and branches of this workspace the tests run, unit tests and live ones together. usage: scripts/coverage.sh [PROGRAM…]
# scripts/coverage.sh --report makes the tables from the last run again.
#
# PROGRAM is a program of tests as scripts/lanes.sh calls it (live, vms, miharu_daemon); unless told all run but the soak, which only takes
# longer, and the packages, whose programs have no place to count into. Programs that tests start count as well, also those that
# are killed. Not counted is what runs in virtual machines. Tests' own lines are left out. Results are in target/coverage:
# report.md has the table by crate and the files with most that is not covered, lines.txt each line that never ran.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
export PATH=$PATH:/usr/sbin:/sbin
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/coverage")
export CARGO_TARGET_DIR CARGO_INCREMENTAL=0
out=$CARGO_TARGET_DIR profiles=$CARGO_TARGET_DIR/profiles
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin
if [ ! -x "$tools/llvm-cov" ]; then
  rustup component add llvm-tools || { echo "coverage: no llvm-cov: rustup component add llvm-tools" >&2; exit 1; }
fi

failed=0
if [ "${1:-}" != --report ]; then
  export RUSTC_WORKSPACE_WRAPPER=$root/scripts/coverage-rustc.sh
  # Build scripts are counted by the same means, and are of no interest.
  export LLVM_PROFILE_FILE=/dev/null
  echo "coverage: building what counts"
  cargo build -q --workspace --bins --tests --locked || exit 1
  rm -rf "$out/programs" "$profiles"
  mkdir -p "$out/programs" "$profiles"
  # The file of a program is laid under its counters while it runs, so that SIGKILL loses nothing.
  export LLVM_PROFILE_FILE="$profiles/%c%m.profraw"
  scripts/lanes.sh --record "$out/programs" || exit 1
  # Doctests are compiled without counters.
  rm -f "$out/programs/doctests"
  for file in "$out/programs/"*; do
    name=$(basename "$file" | sed 's/-[0-9a-f]\{16\}$//')
    if [ $# -gt 0 ]; then
      [[ " $* " == *" $name "* ]] || rm "$file"
    else
      case $name in soak | packages | miharu_bench | micro) rm "$file" ;; esac
    fi
  done
  # Some tests start them as another user, who then finds a file that everybody may write.
  for program in miharu miharud miharu-agent; do "$out/debug/$program" --version >/dev/null; done
  chmod 1777 "$profiles"
  chmod a+rw "$profiles/"*
  MIHARU_TEST_LIMIT=${MIHARU_TEST_LIMIT:-1800} scripts/lanes.sh "$out/programs" "$out/output" >"$out/log" 2>&1 || failed=1
  git rev-parse --short=12 HEAD >"$out/commit"
  unset RUSTC_WORKSPACE_WRAPPER LLVM_PROFILE_FILE
fi

"$tools/llvm-profdata" merge -sparse -o "$out/all.profdata" "$profiles/"*.profraw || exit 1
objects=()
while read -r file; do objects+=(-object "$file"); done < <(
  printf '%s\n' "$out/debug/"{miharu,miharud,miharu-agent}
  grep -ohE '/[^ ]*/debug/deps/[^ ]+' "$out/programs/"* | sort -u)
"$tools/llvm-cov" export -format=lcov -instr-profile="$out/all.profdata" "${objects[@]:1}" \
  -ignore-filename-regex='/(\.cargo|rustc|target)/|/crates/miharu-(e2e|bench|fuzz)/' >"$out/all.lcov" 2>"$out/llvm-cov.log" || { tail -n 5 "$out/llvm-cov.log" >&2; exit 1; }

# Modules of tests with a file of their own: `#[cfg(test)]` above `mod NAME;`.
grep -rn -A 1 --include='*.rs' '^#\[cfg(test)\]' crates |
  sed -n 's/^\(.*\)\.rs-[0-9]*-\(pub([a-z]*) \)\?mod \([a-z_]*\);$/\1 \3/p' |
  while read -r file name; do
    case $(basename "$file") in lib | main | mod) dir=$(dirname "$file") ;; *) dir=$file ;; esac
    printf '%s/%s.rs\n%s/%s/\n' "$dir" "$name" "$dir" "$name"
  done >"$out/tests-only"
awk -v root="$root/" -v lines="$out/lines.txt" -f scripts/coverage.awk "$out/tests-only" "$out/all.lcov" >"$out/report.md" || exit 1
{
  printf '\nCommit %s. Ran: %s.\n' "$(cat "$out/commit")" \
    "$(for file in "$out/programs/"*; do basename "$file"; done | sed 's/-[0-9a-f]\{16\}$//' | sort -u | paste -sd ' ')"
  grep -h '^test: .* \(took\|failed\|was\|had\|told\)' "$out/log" | sed 's/^test: /- /'
} >>"$out/report.md"
cat "$out/report.md"
exit $failed
