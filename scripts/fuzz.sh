#!/usr/bin/env bash
# Feeds every parser inputs that libFuzzer makes up. usage: scripts/fuzz.sh [TARGET…] [--seconds N] [--jobs N] [--more] [--table]
# Without targets all that crates/miharu-fuzz names, an hour each, as many at a time as there are processors: 17 hours on two. --more goes
# on from the last run and adds to its figures; --table shows these again and feeds nothing.
# The last lines are a table from libFuzzer's own reports: seconds, and how many of them a processor was had, executions, edges that
# were reached, inputs kept for reaching them, the most memory, crashes. What crashes a target is kept in target/fuzz/found/TARGET; once it lies in fuzz/corpus/TARGET, `make
# test` takes it.
set -u
cd "$(dirname "$0")/.." || exit 1
seconds=3600 jobs=$(nproc) more='' table='' targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    --jobs) jobs=${2:?--jobs wants a number}; shift 2 ;;
    --more) more=yes; shift ;;
    --table) table=yes; shift ;;
    -*) echo "fuzz: unknown option $1" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
case $seconds$jobs in *[!0-9]*) echo "fuzz: --seconds and --jobs want whole numbers" >&2; exit 2 ;; esac
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
for target in "${targets[@]}"; do
  [ -d "fuzz/corpus/$target" ] || { echo "fuzz: there is no target $target" >&2; exit 2; }
done
work=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
program=$work/$triple/fuzz/libfuzzer found=$work/found logs=$work/logs

# What `cargo fuzz build --sanitizer none` passes. Neither it nor a nightly toolchain is needed for that, and the address
# sanitizer, which is why nightly is, has little to find where nothing is unsafe. --target keeps build scripts out of it.
build() {
  # libFuzzer is C++.
  if ! command -v c++ >/dev/null 2>&1; then
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get install -y -q g++ >/dev/null || { echo "fuzz: no C++ compiler (apt-get install g++)" >&2; return 1; }
  fi
  local flags=-Cpasses=sancov-module option
  for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
  done
  RUSTFLAGS=$flags CARGO_TARGET_DIR=$work nice cargo build -q --profile fuzz --locked --target "$triple" \
    -p miharu-fuzz --features libfuzzer --bin libfuzzer
}

# An allocation beyond 2 GiB fails, whether or not it is ever touched.
fuzzer() { # target, arguments of libFuzzer
  (
    ulimit -v 2097152
    export MALLOC_ARENA_MAX=2
    MIHARU_FUZZ_TARGET=$1 exec nice -n 19 "$program" -timeout=20 -rss_limit_mb=512 "${@:2}"
  )
}

# A crash ends libFuzzer; what time is left is used for others, three at most.
feed() { # target
  local target=$1 end=$((SECONDS + seconds)) log=$logs/$1.log
  mkdir -p "$work/corpus/$target" "$found/$target"
  for _ in 1 2 3; do
    [ $((end - SECONDS)) -gt 0 ] || break
    TIMEFORMAT='cpu: %U %S'
    { time fuzzer "$target" -max_total_time=$((end - SECONDS)) -max_len=8192 -print_final_stats=1 -report_slow_units=20 \
      -dict=fuzz/words.dict "-artifact_prefix=$found/$target/" "$work/corpus/$target" "fuzz/corpus/$target"; } >>"$log" 2>&1 && break
  done
  # What was slow because the machine was busy is not when it is fed alone.
  local input
  for input in "$found/$target"/*; do
    [ -f "$input" ] && fuzzer "$target" "$input" >/dev/null 2>&1 && mv "$input" "$work/once/"
  done
  true
}

row() { # target
  local crashes=0
  [ -d "$found/$1" ] && crashes=$(find "$found/$1" -type f | wc -l)
  cat "$logs/$1.log" 2>/dev/null | awk -v target="$1" -v crashes="$crashes" '
    match($0, / cov: [0-9]+/) { edges = substr($0, RSTART + 6, RLENGTH - 6) }
    match($0, / corp: [0-9]+/) { inputs = substr($0, RSTART + 7, RLENGTH - 7) }
    /stat::number_of_executed_units/ { executions += $2 }
    /stat::peak_rss_mb/ { if ($2 > memory) memory = $2 }
    /^Done [0-9]+ runs in/ { seconds += $5 }
    /^cpu: / { processor += $2 + $3 }
    END {
      printf "| `%s` | %d | %d | %d | %d | %d | %d | %d |\n", target, seconds, processor, executions, edges, inputs, memory, crashes
    }'
}

if [ -z "$table" ]; then
  build || exit 1
  mkdir -p "$found" "$logs" "$work/once"
  [ -n "$more" ] || for target in "${targets[@]}"; do : >"$logs/$target.log"; done
  # Where targets make the files that they read.
  TMPDIR=$(mktemp -d -p /dev/shm miharu-fuzz.XXXXXX) || exit 1
  trap 'rm -rf "$TMPDIR"' EXIT
  export TMPDIR seconds work found logs program
  export -f feed fuzzer
  printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -c 'feed {}'
fi

printf '| target | seconds | of a processor | executions | edges | inputs | memory (MB) | crashes |\n|---|---:|---:|---:|---:|---:|---:|---:|\n'
for target in "${targets[@]}"; do row "$target"; done
if [ -d "$found" ] && [ -n "$(find "$found" -type f -print -quit)" ]; then echo "fuzz: see $found" >&2; exit 1; fi
