#!/usr/bin/env bash
# Runs a command where it sees no process and no cgroup but its own, so that containers of others on this machine neither count
# nor are touched, and so that all that it started ends with it. usage: scripts/alone.sh COMMAND…
#
# Inside, process numbers begin at 1, and what the command sees as the top of every cgroup hierarchy is a cgroup made for it
# below the caller's own.
set -eu

if [ "${1:-}" = --inside ]; then
  shift
  # Each hierarchy again, as a mount shows the cgroups of the namespace that it was made in.
  awk '$3 == "cgroup" || $3 == "cgroup2" { print $3, $2, $4 }' /proc/mounts | while read -r type at options; do
    umount -l "$at"
    if [ "$type" = cgroup2 ]; then
      mount -t cgroup2 none "$at"
    else
      of=$(tr , '\n' <<<"$options" | grep -vxE 'rw|ro|relatime|noatime|nosuid|nodev|noexec|xattr|clone_children' | paste -sd,)
      mount -t cgroup -o "$of" none "$at"
    fi
  done
  export MIHARU_ALONE=1
  # lxcfs of somebody else may end at any time; what needs one here starts its own.
  awk '$3 == "fuse.lxcfs" { print $2 }' /proc/mounts | xargs -r umount -l
  # Not exec: the first process of the namespace has to reap whom nobody waits for.
  "$@"
  exit
fi

name=miharu-alone-$$
made=()
cleanup() {
  local dir
  for dir in ${made[@]+"${made[@]}"}; do
    find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
trap cleanup EXIT
# Ctrl-C is for the command, which ends in good order; this script waits for it.
trap '' INT TERM

# The folder of a line of /proc/self/cgroup, where that hierarchy is mounted.
folder() { # controllers path (no controllers: the unified hierarchy)
  local at
  if [ -z "$1" ]; then
    at=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  else
    at=$(awk -v want="$1" '$3 == "cgroup" && index("," $4 ",", "," want ",") { print $2; exit }' /proc/mounts)
  fi
  [ -n "$at" ] && [ -d "$at$2" ] && printf '%s\n' "${at%/}${2%/}"
}

while IFS=: read -r _ controllers path; do
  parent=$(folder "$controllers" "$path") || continue
  # A cgroup of version 2 that has processes gives no controllers to its children: nothing to hide there, then.
  if [ -n "$(cat "$parent/cgroup.subtree_control" 2>/dev/null)" ]; then
    echo "alone: cgroup v2 with controllers: run without it" >&2
    exit 1
  fi
  mkdir "$parent/$name"
  made+=("$parent/$name")
  if [ -e "$parent/$name/cpuset.cpus" ]; then
    cat "$parent/cpuset.cpus" >"$parent/$name/cpuset.cpus"
    cat "$parent/cpuset.mems" >"$parent/$name/cpuset.mems"
  fi
done </proc/self/cgroup

status=0
(
  trap - INT TERM
  for dir in "${made[@]}"; do echo "$BASHPID" >"$dir/cgroup.procs"; done
  exec unshare --pid --fork --kill-child --mount --propagation private --mount-proc --cgroup -- \
    "$BASH" "$0" --inside "$@"
) || status=$?
exit $status
