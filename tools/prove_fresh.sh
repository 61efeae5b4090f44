#!/usr/bin/env bash
# Proves the fresh-machine rule: a bare Debian 12 in a folder, a clean clone, both commands of the README. Needs root and debootstrap.
# The package mirror is the one this machine's apt uses. Usage: tools/prove_fresh.sh [FOLDER]
set -euo pipefail
root=${1:-$(mktemp -d)}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mirror=$(apt-cache policy | sed -n 's/^ *[0-9]* \(http[^ ]*\) bookworm\/main.*/\1/p' | head -n 1)
[ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$root" "$mirror"
cp /etc/resolv.conf "$root/etc/resolv.conf"
for file in /etc/apt/apt.conf.d/* /etc/apt/apt.conf; do [ -f "$file" ] && cp "$file" "$root/etc/apt/apt.conf.d/"; done
cp -r /etc/apt/sources.list /etc/apt/sources.list.d "$root/etc/apt/" 2> /dev/null || true
for variable in http_proxy https_proxy; do [ -n "${!variable:-}" ] && export "${variable?}"; done
rm -rf "$root/dryfit" && git clone -q "$top" "$root/dryfit"
mount -t proc proc "$root/proc" 2> /dev/null || true
mount --bind /dev "$root/dev" 2> /dev/null || true
mount --bind /dev/pts "$root/dev/pts" 2> /dev/null || true
trap 'umount "$root/dev/pts" "$root/proc" "$root/dev" 2> /dev/null || true' EXIT
chroot "$root" /dryfit/dryfit.sh plan --gpu "RTX 4090"
chroot "$root" /dryfit/test.sh
