#!/bin/sh
# What `cargo xtask evidence guest` does in a Debian that has been booted, by systemd: /packages has the packages (old, new), and a
# function. A control plane runs beside the node. Every step prints a line to the port that $OUT names; the first that fails
# ends it.
set -u
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
exec >"$OUT" 2>&1
trap 'systemctl poweroff' EXIT

step() {
    what=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok      $what"
    else
        echo "FAILED  $what: $said"
        journalctl --no-pager -n 40 -u holmd
        exit 1
    fi
}
sh_() { sh -euc "$1" sh "${2:-}"; }
until_() {
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    "$@"
}
shows() { [ "$(systemctl show -p "$1" --value holmd)" = "$2" ]; }
main() { systemctl show -p MainPID --value holmd; }
counts() { holm results counter --json | grep -q "\"value\":$1}"; }
event() { mosquitto_pub -V mqttv5 -q 1 -t count/x -m "{\"id\":\"$1\"}"; }
agent() { holm status --json | grep -q "\"version\":\"$1\""; }
running() { shows ActiveState active && agent "$1"; }
came() { holm results counter.n --cloud --json | grep -q "\"value\":$1"; }
deploy() { holm deploy "$1" --device pi1 --watch --timeout 12m --health-window 2s; }
breaks() { if deploy "$1" >/tmp/said 2>&1; then cat /tmp/said && return 1; else cat /tmp/said && grep -q rolled-back /tmp/said; fi; }
# A copy of the agent that says that it is another version.
copy() { sed "s/holm-agent-build 0\.1\.0 /holm-agent-build $1 /" /usr/bin/holmd >"/tmp/holmd-$1"; }

echo '127.0.0.1 localhost' >/etc/hosts
echo "# systemd, with $(uname -srm)"
step "the packages install" sh_ 'dpkg --install /packages/old/*.deb'
printf '[cloud]\nkeep_alive = "2s"\nack_timeout = "5s"\n' >/etc/holm/agent.d/proof.toml
step "the unit starts" systemctl restart holmd
step "systemd was told that it is ready" shows SubState running
step "no setting of the unit was ignored" sh_ 'test -z "$(journalctl -b --no-pager -u holmd | grep -i -e unknown -e ignoring)"'
step "it runs as its user, with no rights" sh_ 'grep -q "^CapEff:.0*$" "/proc/$(systemctl show -p MainPID --value holmd)/status"'

echo "# over the air, from a control plane beside it"
systemd-run --quiet --unit=control-plane sh -c 'exec holm cloud --data /srv/cloud --name localhost >/tmp/cloud.log'
step "a control plane starts" until_ grep -q '"ready"' /tmp/cloud.log
sed -n 's/.*"token":"\([^"]*\)".*/\1/p' /tmp/cloud.log >/tmp/token
step "a login" sh_ 'holm login https://localhost:8443 --ca /srv/cloud/ca/root.crt </tmp/token'
holm device enrol-token --group guests >/tmp/invitation 2>/tmp/command
step "the node enrols" sh_ 'runuser -u holm -- holmd enrol --cloud https://localhost:8443 --token "$(cat /tmp/invitation)" \
    --ca-hash "$(sed -n "s/.*--ca-hash //p" /tmp/command)" --thing pi1 --data /var/lib/holm'
step "it connects" until_ sh_ 'holm fleet --json | grep -q "\"connected\":true"'
step "keys are made" holm key new --cloud
step "a function is published" sh_ 'holm publish /packages/counter.holm --json >/tmp/published'
version=$(sed 's/.*"version":"\([^"]*\)".*/\1/' /tmp/published)
step "it is deployed, and compiled within the unit's sandbox" deploy "counter@$version"
step "a message triggers it" event 1
step "it has counted" until_ counts 1
step "the result is in the control plane" until_ came 1
echo "        $(systemd-analyze security --no-pager holmd.service | tail -1), with a function running"
step "systemd-analyze security says at most 1.5" systemd-analyze security --no-pager --threshold=15 holmd.service

echo "# an agent that breaks, and one that does not"
copy 0.2.0
# Its first instruction is nowhere: `e_entry` of the ELF header.
printf '\020\0\0\0\0\0\0\0' | dd of=/tmp/holmd-0.2.0 bs=1 seek=24 conv=notrunc status=none
step "one that does not start is published" holm publish /tmp/holmd-0.2.0
step "its deployment is taken back" breaks holmd@0.2.0
step "the installed one runs" until_ running 0.1.0
restarts=$(systemctl show -p NRestarts --value holmd)
echo "        systemd has started the unit again $restarts times for it"
event 2
step "it counts on" until_ counts 2
copy 0.3.0
step "one that does is published" holm publish /tmp/holmd-0.3.0
step "it is confirmed" deploy holmd@0.3.0
step "it runs" until_ running 0.3.0
step "systemd has not started anything for it" shows NRestarts "$restarts"
step "it is the one from the data folder" sh_ 'readlink "/proc/$(systemctl show -p MainPID --value holmd)/exe" | grep -q ^/var/lib/holm/agent/'
event 3
step "it counts on" until_ counts 3
kill -KILL "$(main)"
step "killed, systemd starts it, and it is the same" until_ running 0.3.0
event 4
step "it counts on" until_ counts 4
step "its watchdog is fed for two minutes" sh_ 'sleep 120; [ "$(systemctl show -p NRestarts --value holmd)" = "$1" ]' "$((restarts + 1))"

echo "# another package, with another agent: the same one again would leave what came over the air where it is"
copy 0.4.0
step "it is made" sh_ 'dpkg-deb -R /packages/new/holm_*.deb /tmp/other && cp /tmp/holmd-0.4.0 /tmp/other/usr/bin/holmd &&
    dpkg-deb -Znone --build /tmp/other /packages/new/holm_*.deb'
step "the new packages install over the old" sh_ 'dpkg --install /packages/new/*.deb'
step "the unit is started again" systemctl restart holmd
step "what is installed runs, and no longer what came over the air" until_ running 0.4.0
event 5
step "it counts on" until_ counts 5
step "it stops cleanly" systemctl stop holmd
step "and did not fail" shows Result success
step "purged, nothing is left" sh_ 'dpkg --purge holm holm-compiler && ! systemctl cat holmd && ! test -e /var/lib/holm'
echo "# done"
