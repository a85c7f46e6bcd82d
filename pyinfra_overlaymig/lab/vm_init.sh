#!/bin/busybox sh
# Process 1 of a virtual machine, in its initramfs: a throwaway root over the read-only base and the seed, /data from a
# disk of its own, and then the machine's entrypoint. It ends as Fly's init does, by `mount --move . /; chroot .`, which
# is what switch_root does.
# From the kernel's command line: $name $address $gateway $mtu
set -eu
# shellcheck disable=SC2154 # they come from there
: "$name" "$address" "$gateway" "$mtu"

/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
# Numbered: each after those that it depends on.
for module in /modules/*; do insmod "$module"; done
for part in base top; do mkdir "/$part"; done
mount -t ext4 -o ro /dev/vda /base
mount -t tmpfs -o mode=755 tmpfs /top
mkdir /top/upper /top/work /top/root
# switch_root empties the initramfs.
cp -a /seed /top/seed
mount -t overlay -o lowerdir=/top/seed:/base,upperdir=/top/upper,workdir=/top/work overlay /top/root

cd /top/root
mount -t ext4 /dev/vdb data
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs run
mount --move /dev dev
mkdir dev/pts dev/shm
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs dev/shm
ln -s /proc/self/fd dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "dev/${number#*:}"; done

hostname "$name"
ip link set lo up
ip addr add "$address" dev eth0
ip link set eth0 mtu "$mtu" up
ip route add default via "$gateway"
exec switch_root . /usr/bin/env -i HOME=/root TERM=linux LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/local/sbin/system-migrate boot -- s6-svscan /run/service
