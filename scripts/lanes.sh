#!/usr/bin/env bash
# Runs the test programs of this workspace, each as `cargo test` would, and says of each how it went.
# usage: scripts/lanes.sh --record FOLDER, which writes down there what `cargo test --workspace` would run; scripts/lanes.sh FOLDER REPORT
#
# Live tests look at the whole host: a machine's monitor takes one client, so that a daemon of one program would take it from
# another's, and what hangs on purpose in one slows down the scrapes that another counts. So programs run one after another, but for the soak,
# which sees a host of its own.
#
# REPORT gets all that the programs wrote, each in one piece. MIHARU_TEST_LANES is how many run at once, one unless told, and
# MIHARU_TEST_LIMIT how many seconds one may take, 1200 unless told: one that hangs shall not take all the time that there is.
set -u
[ $# -eq 2 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
root=$(realpath "$(dirname "$0")/..")
lanes=${MIHARU_TEST_LANES:-1} limit=${MIHARU_TEST_LIMIT:-1200}
# Beside others everything may take longer.
export MIHARU_E2E_SLOWNESS=${MIHARU_E2E_SLOWNESS:-2}

# Instead of running a program, cargo lets this write down how it would have run it: environment, folder and arguments. TMPDIR is
# left to who runs it.
# shellcheck disable=SC2016
recorder='unset TMPDIR; { export -p; printf "cd %q\nexec" "$PWD"; printf " %q" "$@"; echo; } >"$MIHARU_TEST_PROGRAMS/$(basename "$1")"'
record() { # folder
  local host folder said
  folder=$(realpath "$1") || return 2
  cargo test -q --workspace --locked --tests --no-run || return 1
  host=$(rustc -vV | sed -n 's/^host: //p')
  said=$(MIHARU_TEST_PROGRAMS=$folder MIHARU_TEST_RECORDER=$recorder cargo test --workspace --locked --no-fail-fast --tests \
    --config "target.$host.runner=['bash', '-c', 'eval \"\$MIHARU_TEST_RECORDER\"', 'record']" 2>&1) || { printf '%s\n' "$said" >&2; return 1; }
  # Doctests are no program that could be written down: cargo runs them, as one.
  printf 'cd %q\nexec cargo test -q --workspace --locked --no-fail-fast --doc\n' "$root" >"$folder/doctests"
}
if [ "$1" = --record ]; then
  record "$2"
  exit
fi

programs=$1 report=$2
: >"$report" || exit 2
work=$(mktemp -d)
declare -A running=()

# Containers need root: where sudo gives it without asking, the tests run through it.
become=()
if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then become=(sudo -n -E env "PATH=$PATH"); fi

cleanup() {
  if [ ${#running[@]} -gt 0 ]; then
    kill -TERM "${!running[@]}" 2>/dev/null
    wait
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A program's name without the hash that cargo gives it.
name_of() { sed 's/-[0-9a-f]\{16\}$//' <<<"$1"; }

# The soak begins beside the others, and the longest come first. What is not named here is short, or belongs here.
in_order() {
  local name file
  for name in soak vms live runtimes cluster packages web store network state clients resources; do
    for file in "$programs/$name" "$programs/$name-"*; do
      [ ! -f "$file" ] || basename "$file"
    done
  done
  ls "$programs"
}

run() { # program
  local name status=0 began=$SECONDS out=$work/$1.out before=("${become[@]}") inside=() folder='' child
  name=$(name_of "$1")
  case $name in
  doctests) before=() ;; # what cargo writes belongs to the caller
  soak)
    # It counts what comes and goes on a host of its own. Process numbers in there mean nothing outside, so that the journals of
    # what has to be cleaned up have a place of their own, too.
    if { [ "$(id -u)" -eq 0 ] || [ ${#before[@]} -gt 0 ]; } && [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
      inside=("$root/scripts/alone.sh")
      folder=$(mktemp -d "${TMPDIR:-/var/tmp}/miharu-soak-XXXXXX")
      chmod 755 "$folder"
      export TMPDIR=$folder
    fi ;;
  esac
  # A shell lets what it starts in the background ignore Ctrl-C, which some tests send.
  "${before[@]}" env --default-signal=INT,QUIT timeout --kill-after=20 "$limit" "${inside[@]}" bash "$programs/$1" \
    >"$out" 2>&1 </dev/null &
  child=$!
  # Who is stopped stops its program; `timeout` hands that on to all that it has started.
  trap '"${before[@]}" kill -TERM "$child"; wait "$child"; [ -z "$folder" ] || "${before[@]}" rm -rf "$folder"; exit 130' TERM
  wait "$child" || status=$?
  trap - TERM
  [ -z "$folder" ] || "${before[@]}" rm -rf "$folder"
  local took=$((SECONDS - began)) how=''
  if [ "$status" -ne 0 ] && [ "$took" -ge "$limit" ]; then
    how="had not ended after $limit s (MIHARU_TEST_LIMIT) and was stopped"
  elif [ "$status" -gt 128 ]; then
    how="was ended by signal $(kill -l $((status - 128))) after $took s"
  elif [ "$status" -ne 0 ]; then
    how="failed with status $status after $took s"
  elif ! grep -q '^test result: ' "$out"; then
    how="told no result"
  fi
  {
    flock 9
    {
      printf '\n     Running %s\n' "$1"
      cat "$out"
      # A program that died has not counted itself as failed.
      [ -z "$how" ] || grep -q '^test result: FAILED' "$out" || echo "test result: FAILED. 0 passed; 1 failed; it did not come to its end"
      echo "test: $name ${how:-took $took s}"
    } | tee -a "$report"
  } 9>"$work/lock"
  [ -z "$how" ]
}

mapfile -t queue < <(in_order | awk '!seen[$0]++')
failed=0
one_ends() {
  local pid status=0
  wait -n -p pid "${!running[@]}" || status=$?
  [ "$status" -eq 0 ] || failed=1
  # The soak waits for its clock, not for a processor: it takes nobody's lane.
  [ "${running[$pid]}" != soak ] || lanes=$((lanes - 1))
  unset "running[$pid]"
}
for program in "${queue[@]}"; do
  while [ ${#running[@]} -ge "$lanes" ]; do one_ends; done
  name=$(name_of "$program")
  echo "test: $name begins"
  run "$program" &
  running[$!]=$name
  [ "$name" != soak ] || lanes=$((lanes + 1))
done
while [ ${#running[@]} -gt 0 ]; do one_ends; done
exit $failed
