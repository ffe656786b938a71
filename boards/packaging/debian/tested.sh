#!/bin/sh
# What `cargo xtask evidence deb` does with the packages in a Debian system of its own, where systemd is installed and not
# running: /packages has them (old, new), and a function. Every step prints a line; the first that fails ends it.
set -u

step() {
    what=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok      $what"
    else
        echo "FAILED  $what: $said"
        exit 1
    fi
}
not() { ! "$@"; }
sh_() { sh -euc "$1"; }
as_holm() { runuser -u holm -- "$@"; }

# As the unit would have it.
node() {
    install -d -o holm -g holm -m 700 /var/lib/holm
    runuser -u holm -- holmd run >/tmp/ready 2>/tmp/log &
    for _ in $(seq 600); do
        grep -q '"ready"' /tmp/ready && return 0
        sleep 0.1
    done
    cat /tmp/log
    return 1
}
pid() { sed 's/.*"pid":\([0-9]*\).*/\1/' /tmp/ready; }
stop() {
    kill "$(pid)"
    for _ in $(seq 600); do
        [ -d "/proc/$(pid)" ] || return 0
        sleep 0.1
    done
    return 1
}
count() { holm results counter --json | grep -q "\"value\":$1}"; }
event() { echo '{"id":"a"}' | holm invoke counter; }

echo "# installed"
step "it installs, with all that it depends on" sh_ 'dpkg --install /packages/old/*.deb'
step "no file differs from what the package says" sh_ 'test -z "$(dpkg --verify holm holm-compiler)"'
step "there is the user, in the groups of devices, and nobody can log in as it" \
    sh_ 'for g in gpio i2c spi; do id -nG holm | grep -qw $g; done; getent passwd holm | grep -q nologin'
step "the unit is enabled" test -L /etc/systemd/system/multi-user.target.wants/holmd.service
step "systemd finds nothing wrong with the unit" sh_ 'test -z "$(systemd-analyze verify --man=no holmd.service 2>&1)"'
step "the groups of the udev rules are there" \
    sh_ 'grep -o "GROUP=\"[a-z0-9]*\"" /lib/udev/rules.d/60-holm.rules | cut -d\" -f2 | xargs -n1 getent group'
step "the configuration is good" as_holm holmd check-config
step "there are manual pages and completions" \
    sh_ 'ls /usr/share/man/man1/holmd-run.1.gz /usr/share/man/man1/holm-deploy.1.gz /usr/share/bash-completion/completions/holm'
step "a node runs as that user" node
step "a function is compiled here and deployed" holm deploy --local /packages/counter.holm
step "it handles an event" event

echo "# upgraded"
echo "# mine" >>/etc/holm/agent.toml
step "an administrator disables the unit" systemctl disable holmd.service
step "the new version installs over the old" sh_ 'dpkg --install --force-confold /packages/new/*.deb'
step "the node that ran goes on until somebody restarts it" event
step "the old one ends well" stop
step "the new one runs" node
step "it has what the old one kept" event
step "three events have been counted" count 3
step "what the administrator wrote is there" grep -q '^# mine$' /etc/holm/agent.toml
step "the unit is still disabled" not test -e /etc/systemd/system/multi-user.target.wants/holmd.service
step "it ends well" stop

echo "# removed"
step "it is removed" dpkg --remove holm holm-compiler
step "no program of it is left" sh_ '! ls /usr/bin/holm* 2>/dev/null'
step "its configuration and its data are" sh_ 'test -f /etc/holm/agent.toml && test -f /var/lib/holm/holm.db'

echo "# purged"
step "it is purged" dpkg --purge holm holm-compiler
step "nothing of it is left" sh_ 'test ! -e /etc/holm && test ! -e /var/lib/holm && ! find /etc /usr /lib /var/lib/systemd -name "*holmd*" | grep .'
step "it can be installed again" sh_ 'dpkg --install /packages/new/*.deb'

echo "# the unit's sandbox"
exposure=$(systemd-analyze security --no-pager --offline=true holmd.service | sed -n 's/.*exposure level for holmd.service: \([0-9.]*\).*/\1/p')
step "systemd-analyze security: exposure $exposure (1.5 at most)" \
    sh_ "test -n '$exposure' && test \"\$(echo '$exposure' | tr -d .)\" -le 15"
