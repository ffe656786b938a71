#!/bin/sh
# Written by `holm flash --os`, run once by systemd at the first boot, before anything else: the name of the host, the
# wireless network, and Holm. What somebody chose is in files; nothing of it is in this script.
set -u
umask 022

main() {
    # Others, for tests.
    boot=${HOLM_BOOT-/boot/firmware}
    root=${HOLM_ROOT-}
    files=$boot/holm/files
    custom=$root/usr/lib/raspberrypi-sys-mods/imager_custom
    if [ -f "$files/hostname" ]; then
        name=$(cat "$files/hostname")
        if [ -x "$custom" ]; then
            "$custom" set_hostname "$name"
        else
            printf '%s\n' "$name" >"$root/etc/hostname"
            sed -i "s/^127\.0\.1\.1[[:space:]].*/127.0.1.1\t$name/" "$root/etc/hosts"
        fi
    fi
    if [ -f "$files/country" ]; then
        [ -x "$custom" ] && "$custom" set_wlan_country "$(cat "$files/country")"
        connections=$root/etc/NetworkManager/system-connections
        mkdir -p "$connections"
        # NetworkManager takes none that others may read.
        (umask 077 && cp "$files/wifi" "$connections/holm.nmconnection")
        rfkill unblock wifi
        for blocked in "$root"/var/lib/systemd/rfkill/*:wlan; do
            [ -f "$blocked" ] && echo 0 >"$blocked"
        done
    fi
    # A restart follows: until then nothing that is installed shall be started.
    policy=$root/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        sh "$boot/holm/setup.sh" --restarts
    else
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
        sh "$boot/holm/setup.sh" --restarts
        rm -f "$policy"
    fi
    # However it ended: the next boot is an ordinary one.
    sed -i -e 's| systemd\.run=[^ ]*||' -e 's| systemd\.run_success_action=[^ ]*||' \
        -e 's| systemd\.unit=kernel-command-line\.target||' "$boot/cmdline.txt"
    rm -f "$boot/firstrun.sh"
    sync
    exit 0
}

# Read whole before it is run: it deletes itself.
main "$@"
