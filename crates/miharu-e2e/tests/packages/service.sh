# On a machine whose init is systemd, with cgroup v2: the service as users get it, beside real containers.
waited() { # seconds command…: until it holds
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}
state() { systemctl show -P "$1" miharud; }

root() { # folder: the smallest root that a container boots from
  mkdir -p "$1"/{bin,dev,etc,mnt,proc,root,run,sbin,sys,tmp,usr,var}
  cp /bin/busybox "$1/bin/"
  for applet in sh sleep cat; do ln -s busybox "$1/bin/$applet"; done
  printf '#!/bin/sh\ntrap "exit 0" TERM INT PWR USR1\nwhile :; do sleep 1000 & wait $!; done\n' >"$1/sbin/init"
  chmod 755 "$1/sbin/init"
  echo ID=busybox >"$1/etc/os-release"
  echo root:x:0:0::/root:/bin/sh >"$1/etc/passwd"
}
root /var/lib/lxc/u1/rootfs
cat >/var/lib/lxc/u1/config <<X
lxc.uts.name = u1
lxc.rootfs.path = dir:/var/lib/lxc/u1/rootfs
lxc.net.0.type = empty
lxc.init.cmd = /sbin/init
X
# Its root is a file system of its own, of which nothing may be held when it has ended.
truncate -s 64M /var/lib/u2.img
mkfs.ext4 -q /var/lib/u2.img
mkdir -p /var/lib/lxc/u2
mount -o loop /var/lib/u2.img /mnt && root /mnt && umount /mnt
sed 's/u1/u2/;s,dir:.*,loop:/var/lib/u2.img,' /var/lib/lxc/u1/config >/var/lib/lxc/u2/config
chmod 700 /var/lib/lxc
root /var/lib/machines/n1
check 'LXC starts a container' lxc-start -n u1
check 'and one on a disk of its own' lxc-start -n u2
systemd-nspawn -q -D /var/lib/machines/n1 -M n1 --private-network --link-journal=no --console=pipe /sbin/init </dev/null >/dev/null 2>&1 &
# Mounts as podman's storage has them: they do not propagate. And one of the usual kind.
mkdir -p /srv/private /srv/shared
mount -t tmpfs private /srv/private && mount --make-private /srv/private && mkdir /srv/private/merged
mount -t tmpfs merged /srv/private/merged
mount -t tmpfs shared /srv/shared

check 'the package installs' dpkg -i /test/miharu_*.deb
check 'and the agent'"'"'s, as this is a machine' dpkg -i /test/miharu-agent_*.deb
holds 'the service has started' 'systemctl is-active miharud'
holds 'systemd finds nothing wrong with the unit' '[ -z "$(systemd-analyze verify --man=no /lib/systemd/system/miharud.service 2>&1)" ]'
pid=$(state MainPID)
status=/proc/$pid/status
holds 'it runs as its own user' "grep -q ^Uid:.$(id -u miharu) $status && grep -q ^Gid:.$(id -g miharu) $status"
# Threads that look at instances have the capabilities; all others have put them down.
rights_of() { grep -l "^Name:.$1\$" /proc/$2/task/*/status | xargs grep -h '^CapEff' | sort -u | tr -d '\t'; }
export -f rights_of
holds 'with three capabilities' "[ \"\$(rights_of looking $pid)\" = CapEff:0000000000080006 ] && grep -q 'CapBnd:.0000000000080006' $status"
holds 'which what answers the network has put down' "[ \"\$(rights_of miharud $pid)\" = CapEff:0000000000000000 ]"
holds 'no new privileges and filtered calls' "grep -q 'NoNewPrivs:.1' $status && grep -q 'Seccomp:.2' $status"
holds 'and no mount namespace of its own' "[ \$(readlink /proc/$pid/ns/mnt) = \$(readlink /proc/1/ns/mnt) ]"
holds 'its files may be many' "grep -q 'Max open files *524288' /proc/$pid/limits"
check 'it is ready' miharu admin waitready --timeout 60
journalctl -u miharud --no-pager -o cat
holds 'its log names no right that is missing' '! journalctl -u miharud -o cat | grep "without CAP_"'
holds 'and nothing that is not in force' '! journalctl -u miharud -o cat | grep "is not in force"'
check 'the doctor finds nothing missing' miharu admin doctor
miharu admin doctor -f csv | grep -v ^ok,

# The same daemon, as root and without any of this, sees the same.
miharud --dir /root/miharu >/tmp/root.log 2>&1 &
rooted=$!
check 'root'"'"'s is ready' miharu --dir /root/miharu admin waitready --timeout 60
series() { miharu "$@" query /1.0/metrics | grep -v '^#' | sed 's/ [^ ]*$//' | sort; }
three() { [ "$(miharu "$@" list -f csv -c n | sort | tr '\n' ' ')" = "n1 u1 u2 " ]; }
check 'it finds three containers' waited 60 three
check 'and so does root'"'"'s' waited 60 three --dir /root/miharu
sleep 9
series >/tmp/confined
series --dir /root/miharu >/tmp/rooted
wc -l /tmp/confined
check 'every series that root'"'"'s has is there' diff /tmp/rooted /tmp/confined
for name in u1 u2 n1; do
  for family in filesystem_size_bytes network_receive_bytes_total memory_usage_bytes cpu_seconds_total procs_total; do
    holds "$name has $family" "grep '_$family{' /tmp/confined | grep -q 'name=\"$name\"'"
  done
done
kill $rooted
grep -E "WARN|ERROR" /tmp/root.log

useradd -m alice && useradd -m -G miharu bob
holds 'a member of the group may ask' 'su bob -c "miharu list" | grep -q u1'
holds 'somebody else may not, and is told who may' '! su alice -c "miharu list" >/tmp/alice 2>&1; cat /tmp/alice; grep -q "usermod -aG miharu" /tmp/alice'
holds 'nor read its secrets' '! su alice -c "cat /var/lib/miharu/server.key" && ! su bob -c "cat /var/lib/miharu/miharu.db"'
holds 'but the certificate, which is for all' 'su alice -c "cat /var/lib/miharu/server.crt" | grep -q BEGIN'

# Nothing of an instance, and no mount, is held.
check 'the container on a disk ends' lxc-stop -n u2 -k
holds 'its disk is free' 'for i in $(seq 20); do losetup -a | grep -q u2.img || exit 0; sleep 0.5; done; losetup -a; exit 1'
umount /srv/shared /srv/private/merged
holds 'what was unmounted is held by nobody' '! grep -l -E " /srv/(shared|private/merged) " /proc/'"$pid"'/mountinfo'
umount /srv/private
check 'the list follows' waited 30 bash -c '! miharu list -f csv -c n | grep -q u2'

check 'it reloads' systemctl reload miharud
holds 'and says so' 'sleep 1; journalctl -u miharud -o cat | grep -q "reading the server.s certificate"'
# A shorter watchdog: the machine is slow, the test need not be.
mkdir -p /etc/systemd/system/miharud.service.d
printf '[Service]\nWatchdogSec=6\n' >/etc/systemd/system/miharud.service.d/test.conf
systemctl daemon-reload
check 'it restarts' systemctl restart miharud
sleep 15
holds 'the watchdog hears that it lives' '[ "$(systemctl show -P NRestarts miharud)" = 0 ] && systemctl is-active miharud'
pid=$(state MainPID)
systemctl kill -s STOP miharud
restarted() { [ "$(state NRestarts)" -ge 1 ] && [ "$(state ActiveState)" = active ] && [ "$(state MainPID)" != "$pid" ]; }
check 'one that hangs is started anew' waited 60 restarted
holds 'by the watchdog' 'journalctl -u miharud -o cat | grep -qi watchdog'
check 'and answers' miharu list
rm -r /etc/systemd/system/miharud.service.d
systemctl daemon-reload
kill -9 "$(state MainPID)"
check 'one that is killed comes back' waited 30 bash -c 'miharu list'

# Its own certificate it may replace, as that is in its directory; a link in its place is somebody else's.
fingerprint() { sha256sum </var/lib/miharu/server.crt; }
export -f fingerprint
shown=$(fingerprint)
check 'it renews its certificate' miharu admin renew-certificate --san metrics.example.org
holds 'which is another one, for all to read' "[ '$shown' != \"\$(fingerprint)\" ] && [ \$(stat -c %U:%a /var/lib/miharu/server.crt) = miharu:644 ]"
mkdir -m 700 /root/tls && mv /var/lib/miharu/server.crt /root/tls/ && ln -s /root/tls/server.crt /var/lib/miharu/server.crt
holds 'a link is left alone, and its target named' '! miharu admin renew-certificate >/tmp/link 2>&1; cat /tmp/link; grep -q "is a link to /root/tls/server.crt" /tmp/link && [ -L /var/lib/miharu/server.crt ]'
rm /var/lib/miharu/server.crt && mv /root/tls/server.crt /var/lib/miharu/

# What only a person can mend is not tried again every two seconds.
systemctl stop miharud
cp -p /var/lib/miharu/miharu.db /root/ && truncate -s 5000 /var/lib/miharu/miharu.db
check 'a damaged database ends the start' bash -c '! systemctl start miharud'
restarts=$(state NRestarts)
sleep 5
holds 'for good, with a status of its own' "[ '$(state ActiveState) $(state ExecMainStatus) $(state NRestarts)' = 'failed 78 $restarts' ]"
systemctl status --no-pager --full miharud >/tmp/status
holds 'and systemctl status says why' 'cat /tmp/status; grep -q "Status: .*miharu.db: it is damaged" /tmp/status && grep -q "cp -p /var/lib/miharu/miharu.db.backup" /tmp/status'
systemctl stop miharud
cp -p /root/miharu.db /var/lib/miharu/
check 'mended it starts' systemctl start miharud
check 'and answers as before' miharu list

# Without the sockets: what the drop-in of the examples costs, and that containers keep their figures.
install -D -m 644 /usr/share/doc/miharu/examples/no-sockets.conf /etc/systemd/system/miharud.service.d/no-sockets.conf
systemctl daemon-reload
check 'it starts with two capabilities' systemctl restart miharud
holds 'which are two' "[ \"\$(rights_of looking \$(systemctl show -P MainPID miharud))\" = CapEff:0000000000080004 ]"
two() { [ "$(miharu list -f csv -c n | sort | tr '\n' ' ')" = "n1 u1 " ]; }
check 'and finds the containers' waited 60 two
sleep 9
series | grep -E 'name="(u1|n1)"' >/tmp/two
grep -E 'name="(u1|n1)"' /tmp/confined >/tmp/before
check 'with all their figures' diff /tmp/before /tmp/two

# Why the unit has nothing that makes a mount namespace: a mount that does not propagate would be held by it.
mount -t tmpfs private /srv/private && mount --make-private /srv/private && mkdir /srv/private/merged
mount -t tmpfs merged /srv/private/merged
printf '[Service]\nProtectSystem=strict\n' >/etc/systemd/system/miharud.service.d/no-sockets.conf
systemctl daemon-reload
systemctl restart miharud
umount /srv/private/merged
holds 'ProtectSystem= would hold what was unmounted' "grep -q ' /srv/private/merged ' /proc/\$(systemctl show -P MainPID miharud)/mountinfo"
rm -r /etc/systemd/system/miharud.service.d
systemctl daemon-reload
systemctl restart miharud
holds 'and the unit as it is does not' "! grep -q ' /srv/private/merged ' /proc/\$(systemctl show -P MainPID miharud)/mountinfo"

systemd-analyze security miharud --no-pager | tail -n 1
state MemoryPeak 2>/dev/null
systemctl show miharud -p MemoryCurrent -p TasksCurrent
holds 'the sandbox is worth the name' 'systemd-analyze security --threshold=45 miharud >/dev/null'
steady() { [ "$(systemctl show -P ActiveState miharu-agent) $(systemctl show -P NRestarts miharu-agent)" = "active 0" ]; }
check 'the agent has been there all the time' steady
check 'purging stops it' dpkg -P miharu
holds 'for good' '! systemctl is-active miharud && ! pgrep miharud && ! [ -e /var/lib/miharu ] && ! id miharu'
exit $failed
