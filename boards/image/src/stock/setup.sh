#!/bin/sh
# Written by `holm flash --os`: installs Holm at the first boot, hands over what the card was told, and erases that here.
# What somebody chose is in files beside this; nothing of it is in this script.
set -u

# From the card to its place: which, whose, for whom, where. One that is not there was not wanted.
hand() {
    [ -f "$here/files/$1" ] || return 0
    # One that was erased already, before the power went: what came of it is there.
    [ -n "$(tr -d '\000' <"$here/files/$1" | head -c 1)" ] || return 0
    to=$root$4
    mkdir -p "${to%/*}" && cp "$here/files/$1" "$to.part" && chown "$2" "$to.part" && chmod "$3" "$to.part" \
        && mv -f "$to.part" "$to" && return 0
    say "$4 could not be written"
    failed=yes
}

# FAT leaves what a deleted file held where it was, for any laptop to find. What came of it is on the disk before.
erase() {
    sync
    for file in "$here"/files/*; do
        [ -f "$file" ] || continue
        dd if=/dev/zero of="$file" bs="$(wc -c <"$file")" count=1 conv=notrunc,fsync 2>/dev/null
        rm -f "$file"
    done
}

say() {
    printf 'holm: %s\n' "$*"
    printf '%s\n' "$*" >>"$here/setup.log"
}

main() {
    here=$(CDPATH='' cd "${0%/*}" && pwd) || exit 1
    # Another root, for tests.
    root=${HOLM_ROOT-}
    failed=no
    if ! dpkg --install "$here"/*.deb >>"$here/setup.log" 2>&1; then
        say "the packages could not be installed; the node is not there"
        exit 1
    fi
    umask 077
    mkdir -p "$root/var/lib/holm" && chown holm:holm "$root/var/lib/holm" && chmod 700 "$root/var/lib/holm"
    hand enrol.toml holm:holm 600 /var/lib/holm/enrol.toml
    hand mqtt.crt root:holm 640 /etc/holm/mqtt.crt
    hand mqtt.key root:holm 640 /etc/holm/mqtt.key
    hand mqtt.toml root:holm 640 /etc/holm/agent.d/50-mqtt.toml
    hand config.toml root:holm 640 /etc/holm/agent.d/60-card.toml
    [ "$failed" = no ] || exit 1
    # What a card was given must not keep its node from running.
    if [ -f "$here/files/config.toml" ] && ! holmd check-config >>"$here/setup.log" 2>&1; then
        say "the card's configuration has problems, and is left out: /etc/holm/agent.d/60-card.toml.refused"
        mv -f "$root/etc/holm/agent.d/60-card.toml" "$root/etc/holm/agent.d/60-card.toml.refused"
        erase
    else
        erase
        rm -rf "$here"
    fi
    # The package has started it, or the restart that follows will.
    [ "${1-}" = --restarts ] || systemctl --no-block restart holmd.service
    exit 0
}

# Read whole before it is run: it deletes itself.
main "$@"
