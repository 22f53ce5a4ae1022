#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine. usage: scripts/setup.sh build|demo|test|deny|bench
#
# Prints one line a step, nothing else, and touches the network only when something is missing. What cannot be had is said
# on a line that starts with "setup:" and the exit status is 1; the caller decides whether to go on without it.
set -u
goal=${1:-test}
cache=${MIHARU_CACHE:-$(cd "$(dirname "$0")/.." && pwd)/target/e2e-cache}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$1"; tail -n 5 "$log" | sed 's/^/setup:   /'; failed=1; }
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1; }

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if have sudo; then sudo=(sudo); else say "not root and no sudo here: nothing can be installed"; fi
fi

# The program that shows whether a package is there, and the package.
build_needs='cc:build-essential'
demo_needs='lxc-start:lxc busybox:busybox-static openssl:openssl curl:curl ip:iproute2 cc:build-essential
  cpio:cpio modprobe:kmod mkfs.ext4:e2fsprogs'
test_needs="$demo_needs lxcfs:lxcfs systemd-nspawn:systemd-container lxd:lxd lxc:lxd-client prometheus:prometheus
  promtool:prometheus jq:jq dnsmasq:dnsmasq-base podman:podman conmon:conmon runc:runc crun:crun fuse-overlayfs:fuse-overlayfs
  newuidmap:uidmap dockerd:docker.io docker:docker.io containerd:containerd ctr:containerd dbus-daemon:dbus
  etcd:etcd-server etcdctl:etcd-client faketime:faketime chromium:chromium certutil:libnss3-tools dh:debhelper
  lintian:lintian mmdebstrap:mmdebstrap strace:strace sqlite3:sqlite3"
bench_needs="lxc-start:lxc busybox:busybox-static openssl:openssl ip:iproute2 lxcfs:lxcfs lxd:lxd lxc:lxd-client dnsmasq:dnsmasq-base
  netdata:netdata perf:linux-perf unsquashfs:squashfs-tools newuidmap:uidmap unshare:util-linux"

# Without a network everything below would wait for it in turn: one failed attempt is enough.
updated=no
update() {
  case $updated in yes) return 0 ;; failed) return 1 ;; esac
  say "reading the package lists"
  if "${sudo[@]}" apt-get update -qq -o Acquire::Retries=2 >"$log" 2>&1; then updated=yes; return 0; fi
  updated=failed
  fail "apt-get update failed:"
  return 1
}

install() { # packages…
  [ $# -eq 0 ] && return 0
  if ! have apt-get; then say "missing, and no apt-get to install them: $*"; failed=1; return 1; fi
  update || return 1
  say "installing $*"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "$@" >"$log" 2>&1 ||
    fail "could not install $*:"
}

missing() { # program:package…
  local pair
  for pair in "$@"; do have "${pair%%:*}" || printf '%s\n' "${pair##*:}"; done | sort -u
}

# The machine's own sources with another suite, in a folder.
backports() { # folder
  local f
  for f in /etc/apt/sources.list.d/*.sources; do
    grep -q 'bookworm' "$f" || continue
    sed 's/^Suites:.*/Suites: bookworm-backports/' "$f" | awk 'BEGIN{RS=""} !/security/{print $0 "\n"}' >"$1/backports-$(basename "$f")"
  done
  [ -s /etc/apt/sources.list ] && grep -E '^deb .* bookworm main' /etc/apt/sources.list | head -n 1 |
    sed 's/ bookworm / bookworm-backports /' >"$1/backports.list"
  chmod 755 "$1"
}

# Debian's own QEMU, or the one from backports where parts of that are installed already (the two do not mix). The extra
# source is the machine's own with another suite, in a folder for this one call: the machine's sources stay as they are.
install_qemu() {
  have qemu-system-x86_64 && return 0
  have apt-get || { say "no QEMU and no apt-get to install it"; failed=1; return 1; }
  update || return 1
  if apt-get install -s --no-install-recommends qemu-system-x86 >"$log" 2>&1 && ! grep -q '^Remv' "$log"; then
    install qemu-system-x86
    return
  fi
  say "installing qemu-system-x86 from backports, as other parts of QEMU here are from there"
  local parts; parts=$(mktemp -d)
  cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$parts/" 2>/dev/null
  backports "$parts"
  local opts=(-o "Dir::Etc::SourceParts=$parts")
  { "${sudo[@]}" apt-get "${opts[@]}" update -qq &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${opts[@]}" install -yqq --no-install-recommends \
      -t bookworm-backports qemu-system-x86; } >"$log" 2>&1 || fail "could not install QEMU:"
  rm -rf "$parts"
}

# The kernel that the cgroup v2 guest boots: unpacked, never installed.
fetch_kernel() {
  compgen -G "$cache/kernel/boot/vmlinuz-*" >/dev/null && return 0
  have apt-get || { say "no guest kernel and no apt-get to fetch one"; failed=1; return 1; }
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/{print $2; exit}')
  if [ -z "$package" ]; then update || return 1
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/{print $2; exit}')
  fi
  say "fetching the guest's kernel, $package"
  local tmp; tmp=$(mktemp -d); chmod 755 "$tmp"
  { (cd "$tmp" && apt-get download -qq "$package") || { update && (cd "$tmp" && apt-get download -qq "$package"); }; } >"$log" 2>&1
  mkdir -p "$cache"
  if compgen -G "$tmp/*.deb" >/dev/null && dpkg -x "$tmp"/*.deb "$tmp/kernel" && rm -rf "$cache/kernel" && mv "$tmp/kernel" "$cache/kernel"
  then :; else fail "could not fetch $package:"; fi
  rm -rf "$tmp"
}

# Agents for the guests of tests: unpacked, never installed here, as they belong into a virtual machine.
fetch_agent() { # package program [backports]
  [ -x "$cache/$1/$2" ] && return 0
  have apt-get || { say "no $1 and no apt-get to fetch one"; failed=1; return 1; }
  say "fetching $1"
  local tmp; tmp=$(mktemp -d); chmod 755 "$tmp"
  if [ "${3:-}" = backports ]; then
    mkdir "$tmp/parts" "$tmp/lists"; backports "$tmp/parts"
    local opts=(-o "Dir::Etc::SourceParts=$tmp/parts" -o Dir::Etc::SourceList=/dev/null -o "Dir::State::Lists=$tmp/lists")
    { apt-get "${opts[@]}" update -qq && (cd "$tmp" && apt-get "${opts[@]}" download -qq "$1"); } >"$log" 2>&1
  else
    { (cd "$tmp" && apt-get download -qq "$1") || { update && (cd "$tmp" && apt-get download -qq "$1"); }; } >"$log" 2>&1
  fi
  mkdir -p "$cache"
  if compgen -G "$tmp/*.deb" >/dev/null && dpkg -x "$tmp"/*.deb "$tmp/unpacked" && rm -rf "$cache/$1" && mv "$tmp/unpacked" "$cache/$1"
  then :; else fail "could not fetch $1:"; fi
  rm -rf "$tmp"
}

# A real Incus beside LXD: unpacked, never installed, as the two do not go together.
fetch_incus() {
  [ -x "$cache/incus/usr/libexec/incus/incusd" ] && return 0
  have apt-get || { say "no Incus and no apt-get to fetch one"; failed=1; return 1; }
  say "fetching Incus from backports"
  local tmp deb; tmp=$(mktemp -d); chmod 755 "$tmp"
  mkdir "$tmp/parts" "$tmp/lists"; backports "$tmp/parts"
  # With the machine's own sources too, as what Incus depends on may come from there.
  cp /etc/apt/sources.list.d/*.sources "$tmp/parts/" 2>/dev/null
  local opts=(-o "Dir::Etc::SourceParts=$tmp/parts" -o "Dir::State::Lists=$tmp/lists")
  { apt-get "${opts[@]}" update -qq &&
    (cd "$tmp" && apt-get "${opts[@]}" -t bookworm-backports download -qq incus-base incus-client libcowsql0 libraft0); } >"$log" 2>&1
  for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$tmp/incus" >>"$log" 2>&1; done
  mkdir -p "$cache"
  if [ -x "$tmp/incus/usr/libexec/incus/incusd" ] && rm -rf "$cache/incus" && mv "$tmp/incus" "$cache/incus"
  then :; else fail "could not fetch Incus:"; fi
  rm -rf "$tmp"
}

# An exporter that people run today, to compare with.
install_exporter() {
  [ -x "$cache/exporter/bin/cgroups-exporter" ] && return 0
  say "installing cgroups-exporter from PyPI into target/"
  mkdir -p "$cache"
  python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
  # With argclass of today, which it allows, it refuses its own arguments.
  { python3 -m venv "$cache/exporter" && "$cache/exporter/bin/pip" install -q --retries 1 --timeout 20 'cgroups-exporter>=0.8,<1' \
    'argclass>=1.0,<1.1'; } >"$log" 2>&1 ||
    { rm -rf "$cache/exporter"; fail "could not install cgroups-exporter:"; }
}

# Virtio vsock for guests on a host whose kernel has none, as machines for CI: about a minute to build, once.
build_vsock() {
  [ -x "$cache/vhost-device-vsock/bin/vhost-device-vsock" ] && return 0
  say "building vhost-device-vsock"
  mkdir -p "$cache"
  CARGO_TARGET_DIR=$cache/vhost-device-vsock/target cargo install -q --locked --debug --no-track \
    --root "$cache/vhost-device-vsock" --version 0.3.0 vhost-device-vsock >"$log" 2>&1 || fail "could not build vhost-device-vsock:"
  rm -rf "$cache/vhost-device-vsock/target"
}

# What holds our dependencies to deny.toml. Nobody gives away a built one that can read that file, neither Debian nor PyPI, so that it is
# built, without debug information, which takes 100 s of processor time.
build_deny() {
  have cargo-deny && return 0
  [ -x "$cache/cargo-deny/bin/cargo-deny" ] && return 0
  say "building cargo-deny"
  mkdir -p "$cache"
  CARGO_TARGET_DIR=$cache/cargo-deny/target CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 nice -n 19 cargo install -q --locked --debug \
    --no-track --root "$cache/cargo-deny" --version 0.20.2 cargo-deny >"$log" 2>&1 || fail "could not build cargo-deny:"
  rm -rf "$cache/cargo-deny/target"
}

# Packages of libvirt whose programs do not tell whether they are all there.
install_libvirt() {
  { have libvirtd && have virsh; } || install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
  [ -x /usr/lib/libvirt/libvirt_lxc ] || install libvirt-daemon-driver-lxc
}

# What podman takes an image without asking for: the file is no program's.
install_policy() {
  [ -f /etc/containers/policy.json ] || install golang-github-containers-common
}

# Japanese letters for the pictures of the web page; a font is no program.
install_font() {
  [ -d /usr/share/fonts/opentype/ipafont-gothic ] || [ -d /usr/share/fonts/opentype/noto ] || install fonts-ipafont-gothic
}

# What looks through the web page for what shuts people out (MPL-2.0; it stays in target/ and is part of nothing): from the registry of
# npm, by its own client where that is there, as it may be set to another registry.
fetch_axe() {
  [ -f "$cache/axe-core/axe.min.js" ] && return 0
  say "fetching axe-core from npm into target/"
  local tmp version=4.14.1 sum=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
  tmp=$(mktemp -d)
  { if have npm; then (cd "$tmp" && npm pack --silent "axe-core@$version"); else
      curl -fsSL --max-time 60 -o "$tmp/axe-core-$version.tgz" "https://registry.npmjs.org/axe-core/-/axe-core-$version.tgz"; fi
    printf '%s  %s\n' "$sum" "$tmp/axe-core-$version.tgz" | sha256sum -c --quiet - && tar -xzf "$tmp/axe-core-$version.tgz" -C "$tmp"; } >"$log" 2>&1
  mkdir -p "$cache"
  if [ -f "$tmp/package/axe.min.js" ] && rm -rf "$cache/axe-core" && mv "$tmp/package" "$cache/axe-core"
  then :; else fail "could not fetch axe-core:"; fi
  rm -rf "$tmp"
}

# A clean Debian to install the packages on, with systemd, shells that complete, what checks man pages, and LXC: from the
# machine's own sources.
fetch_root() {
  [ -s "$cache/debian-root.tar" ] && return 0
  have mmdebstrap || return 1
  say "packing a clean Debian"
  local suite sources=() f
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
  for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list; do
    [ -s "$f" ] && grep -q "$suite" "$f" && sources+=("$f")
  done
  mkdir -p "$cache"
  if "${sudo[@]}" mmdebstrap --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include=systemd,systemd-sysv,dbus,systemd-container,lxc,iproute2,busybox-static,man-db,mandoc,bash-completion,zsh,fish,e2fsprogs,procps \
    "$suite" "$cache/debian-root.part.tar" "${sources[@]}" >"$log" 2>&1 &&
    mv "$cache/debian-root.part.tar" "$cache/debian-root.tar"
  then :; else rm -f "$cache/debian-root.part.tar"; fail "could not pack a clean Debian:"; fi
}

# A strict OpenMetrics parser, the reference one, from PyPI.
install_parser() {
  "$cache/venv/bin/python" -c 'import prometheus_client.openmetrics.parser' 2>/dev/null && return 0
  say "installing prometheus_client from PyPI into target/"
  mkdir -p "$cache"
  if { python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" install -q --retries 1 --timeout 20 'prometheus_client>=0.20,<1'; } >"$log" 2>&1; then return; fi
  rm -rf "$cache/venv"
  install python3-venv
  { python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" install -q --retries 1 --timeout 20 'prometheus_client>=0.20,<1'; } >"$log" 2>&1 ||
    { rm -rf "$cache/venv"; fail "could not install prometheus_client:"; }
}

# The Python library that people script LXD with.
install_pylxd() {
  "$cache/pylxd/bin/python" -c 'import pylxd' 2>/dev/null && return 0
  say "installing pylxd from PyPI into target/"
  mkdir -p "$cache"
  python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
  { python3 -m venv "$cache/pylxd" && "$cache/pylxd/bin/pip" install -q --retries 1 --timeout 20 'pylxd>=2.3,<3'; } >"$log" 2>&1 ||
    { rm -rf "$cache/pylxd"; fail "could not install pylxd:"; }
}

have cargo || { say "cargo is missing: install Rust from https://rustup.rs first"; exit 1; }
case $goal in
build)
  # shellcheck disable=SC2046
  install $(missing $build_needs) ;;
demo)
  # shellcheck disable=SC2046
  install $(missing $demo_needs)
  # The demo's virtual machine; without it the containers have to do.
  install_qemu
  fetch_kernel ;;
test)
  # shellcheck disable=SC2046
  install $(missing $test_needs)
  install_qemu
  install_libvirt
  install_policy
  fetch_kernel
  fetch_agent qemu-guest-agent usr/sbin/qemu-ga
  fetch_agent lxd-agent usr/bin/lxd-agent
  fetch_agent incus-agent usr/libexec/incus/incus-agent backports
  fetch_incus
  fetch_root
  build_vsock
  install_parser
  install_font
  fetch_axe
  install_pylxd ;;
deny) build_deny ;;
bench)
  # shellcheck disable=SC2046
  install $(missing $bench_needs)
  fetch_incus
  install_exporter ;;
*) say "usage: scripts/setup.sh build|demo|test|deny|bench"; exit 2 ;;
esac
exit $failed
