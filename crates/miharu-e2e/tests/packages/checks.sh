# What both scripts begin with: a check that fails is told with its output, and the rest goes on.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
rm -f /var/lib/man-db/auto-update
failed=0
check() { # what command…
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then echo "ok: $what"; else
    failed=1
    printf 'FAILED: %s\n%s\n' "$what" "$said"
  fi
}
# The same for a line of shell.
holds() { check "$1" bash -c "$2"; }
