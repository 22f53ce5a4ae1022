# In a clean Debian without an init: what the packages bring, and what is left of them. Versions come from the names of /test's files.
old=$(ls /test/miharu_0.0.9*.deb) new=$(ls /test/miharu_*.deb | grep -v _0.0.9)
echo "$old $new"

check 'it installs' apt-get install -qqy "$old"
holds 'it has a user and a group of its own' 'id miharu && getent group miharu && getent passwd miharu | grep -q nologin$'
holds 'the state directory lets its group pass' '[ "$(stat -c "%a %U %G" /var/lib/miharu)" = "711 miharu miharu" ]'
holds 'everything else is root'"'"'s, and nobody else writes it' '! dpkg -L miharu | grep -v "^/var/lib/miharu$" | while read -r path; do
  [ -L "$path" ] || stat -c "%A %U %G %n" "$path"; done | grep -vE "^.....-..-. root root"'
holds 'nothing is set-user-id' '! dpkg -L miharu | while read -r path; do find "$path" -maxdepth 0 -perm /6000; done | grep .'
holds 'the service starts with the machine' '[ "$(systemctl is-enabled miharud)" = enabled ]'
holds 'the programs tell their version' 'miharu --version && miharud --version'
holds 'it needs the C library alone' 'dpkg -s miharu | grep -E "^Depends: libc6 \(>= 2\.[0-9]+\), libgcc-s1 \(>= [0-9.]+\), systemd"'

for page in $(dpkg -L miharu | grep '/man/man[18]/'); do
  name=$(basename "$page" .gz)
  check "man finds $name" man -w "${name##*.}" "${name%.*}"
  holds "$name is well formed" "mandoc -T lint -W error $page"
done
holds 'each command has a page' '[ "$(dpkg -L miharu | grep -c /man1/miharu-)" -gt 40 ] && miharu --help | sed -n "/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p" | grep -v ^help | while read -r command; do
  man -w 1 "miharu-$command" || exit 1; done'
holds 'man shows one' 'man miharu-query | grep -q recursion || man miharu-query | grep -qi request'
holds 'bash completes commands' '. /usr/share/bash-completion/bash_completion; __load_completion miharu; COMP_WORDS=(miharu conf); COMP_CWORD=1
  $(complete -p miharu | sed "s/.*-F \([^ ]*\).*/\1/") miharu conf miharu; [ "${COMPREPLY[*]}" = config ]'
holds 'fish can read its completion' 'fish --no-execute /usr/share/fish/vendor_completions.d/miharu.fish && fish -c "complete -C \"miharu conf\"" | grep -q ^config'
holds 'zsh knows the completion and can load it' \
  'zsh -fc "autoload -Uz compinit && compinit -u -D && [ \$_comps[miharu] = _miharu ] && autoload +X _miharu"'
holds 'examples are there, in plain text' 'cd /usr/share/doc/miharu/examples && [ -s prometheus.yml ] && [ -s no-sockets.conf ] &&
  [ -s dashboards/grafana/miharu.json ] && [ -s dashboards/prometheus/alerts.yml ]'
holds 'the pages that messages name are there, in plain text' 'cd /usr/share/doc/miharu/docs && [ -s how-to/agent.md ] &&
  [ -s reference/server-keys.md ] && [ -s tutorial/getting-started.ja.md ] && [ -z "$(find . -name "*.gz")" ]'
holds 'both changelogs and the licence are there' 'cd /usr/share/doc/miharu && zgrep -q . changelog.gz && zgrep -q ^miharu changelog.Debian.gz &&
  grep -q Apache-2.0 copyright'

# What users keep: state, and what they changed.
su -s /bin/sh miharu -c 'echo kept >/var/lib/miharu/miharu.db'
check 'it upgrades' apt-get install -qqy "${new:?}"
holds 'to the new version' "dpkg -s miharu | grep -q '^Version: $(dpkg-deb -f "$new" Version)'"
holds 'state survives an upgrade' 'grep -q kept /var/lib/miharu/miharu.db'
check 'it can be removed' apt-get remove -qqy miharu
holds 'the programs are gone then' '! [ -e /usr/sbin/miharud ] && ! [ -e /usr/bin/miharu ] && ! [ -e /lib/systemd/system/miharud.service ]'
holds 'and the state is kept' 'grep -q kept /var/lib/miharu/miharu.db && id miharu'
check 'it comes back' apt-get install -qqy "$new"
holds 'with its state' 'grep -q kept /var/lib/miharu/miharu.db'
check 'it can be purged' apt-get purge -qqy miharu
holds 'which leaves no file' '! find / -xdev \( -path /test -o -path /proc -o -path /var/log -o -path /var/cache -o -path /tmp \) -prune -o -iname "*miharu*" -print | grep .'
holds 'no user and no group' '! getent passwd miharu && ! getent group miharu'

agent=$(ls /test/miharu-agent_*.deb | grep -v _0.0.9)
check 'the agent installs' apt-get install -qqy "$agent"
holds 'it needs nothing' '! dpkg -s miharu-agent | grep ^Depends'
holds 'it is one static program' 'ldd /usr/sbin/miharu-agent 2>&1 | grep -E "statically linked|not a dynamic"'
holds 'it reports' 'miharu-agent --once | grep -q memory && miharu-agent --version'
holds 'its page tells every option' 'man miharu-agent | col -b >/tmp/page; miharu-agent --help | grep -oE -- "--[a-z-]+" | while read -r option; do
  grep -qe "$option" /tmp/page || { echo "$option is not there"; exit 1; }; done'
holds 'its page is well formed' 'mandoc -T lint -W error /usr/share/man/man8/miharu-agent.8.gz'
check 'it can be purged, too' apt-get purge -qqy miharu-agent
holds 'and leaves no file' '! find / -xdev \( -path /test -o -path /proc -o -path /var/log -o -path /var/cache -o -path /tmp \) -prune -o -iname "*miharu*" -print | grep .'
exit $failed
