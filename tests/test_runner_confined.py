"""A script is root in its stage and nowhere else: what leads out of it, or to the kernel's own settings, is refused."""

from __future__ import annotations

import pytest

from tests.rig import Rig

ID = "20250201-001_wants_out"

REFUSED = """\
mount -o remount,rw /proc/sys
mount -o remount,bind,rw /proc/sys
mount -o remount,bind,rw /sys
mount -o remount,bind,rw /data
mount -o remount,bind,dev /
umount /proc/sys
umount -l /proc
umount -l /sys
umount /data
umount /dev/null
mount -t proc proc /mnt
mount -t sysfs sysfs /mnt
echo 1 >/proc/sys/net/ipv4/ip_forward
sysctl -w kernel.threads-max=4711
ls /proc/1/root/
ls /proc/1/cwd/
cat /proc/1/maps /proc/1/syscall
nsenter -t 1 -m true
nsenter -t 1 -n true
kill -9 1 && test ! -e /proc/1
date -s 2001-01-01
hwclock -w
ip link add dummy0 type dummy
ip addr add 192.0.2.1/32 dev lo
ip route flush table main
mknod /srv/disk b 254 0 && head -c 1 /srv/disk
mknod /dev/disk b 254 0 && head -c 1 /dev/disk
mknod /run/disk b 254 0 && head -c 1 /run/disk
mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem
mknod /var/lib/app/mem c 1 1 && head -c 1 /var/lib/app/mem
echo 1 >/proc/self/loginuid
dmesg -C
rm /dev/full
"""
# Each would fail for another reason where the kernel let it begin: it has to be EPERM, or ENOSYS of a kernel without.
CALLS = (
    *('c.syscall(175, 0, 0, b"")', "c.reboot(0x89ABCDEF)", "c.iopl(3)"),
    r'c.open_by_handle_at(-100, b"\x08\0\0\0\1\0\0\0" + b"x" * 8, 0)',
)
IS_REFUSED = (
    "python3 -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True); {}; exit(ctypes.get_errno() in (1, 38))'\n"
)
REFUSED += "".join(map(IS_REFUSED.format, CALLS))
POSSIBLE = """\
head -c 99999 /dev/zero >/srv/swap && mkswap /srv/swap && ! swapon /srv/swap
mount -t tmpfs tmpfs /mnt && umount /mnt
unshare --mount --pid --fork --mount-proc true
unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt && touch /mnt/x'
hostname mine && test "$(hostname)" = mine
echo x >/dev/null && test "$(head -c 3 /dev/zero | wc -c)" = 3 && head -c 1 /dev/urandom
script -qc tty /dev/null
bash -c 'cat <(echo x)'
su nobody -s /bin/sh -c id
touch /srv/kept && chattr +i /srv/kept && chattr -i /srv/kept
cp /usr/bin/id /srv/id && setcap cap_net_raw+ep /srv/id && getcap /srv/id | grep -q net_raw
mkdir -p /srv/jail/dev && mknod -m 666 /srv/jail/dev/null c 1 3
chroot / true
nice -n -5 true
chown daemon /srv/kept && chmod 4755 /srv/kept
test -d /sys/class && grep -q . /proc/cpuinfo && test -w /proc/self/comm
"""
ESCAPE = """
import os
os.mkdir("/srv/hole"); os.chroot("/srv/hole")
for _ in range(99): os.chdir("..")
os.chroot(".")
assert "hole" in os.listdir("/srv") and not os.listdir("/data"), os.listdir("/")
"""
LOOK = """
cat /proc/swaps
cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/threads-max; hostname; ip -o -4 addr; ip route
ls -la --time-style=+ /dev
"""


@pytest.fixture(scope="module")
def confined(rig: Rig) -> Rig:
    done = rig.apply("20250101-001_app", "mkdir -p /var/lib/app; echo x >/var/lib/app/x", state=["/var/lib/app"])
    assert done.code == 0, done.text
    return rig


def test_script_cannot_leave_its_stage(confined: Rig) -> None:
    """Neither by mounts, namespaces, devices, handles and process 1, nor are clock, network and kernel its own."""
    here, before = confined.sh(LOOK), confined.tree()
    tries = _all(REFUSED, 'if ( eval "$line" ) </dev/null >/run/said 2>&1; then echo "WENT $line"; fi')
    failed = 'echo "FAILED $line"; cat /run/said'
    must = _all(POSSIBLE, f'( eval "$line" ) </dev/null >/run/said 2>&1 || {{ {failed}; }}; echo TRIED')
    escape = f"python3 - <<'END' || echo WENT up\n{ESCAPE}\nEND"
    done = confined.apply(ID, f"{tries}\n{must}\n{escape}\nexit 7")
    assert (done.code, "failed with status 7" in done.text) == (9, True), done.text
    assert [line for line in done.text.splitlines() if line.startswith(("WENT", "FAILED"))] == [], done.text
    assert done.text.count("TRIED") == len(POSSIBLE.splitlines())
    assert confined.sh(LOOK) == here
    assert confined.tree() ^ before == frozenset()


def _all(lines: str, what: str) -> str:
    return f"while read -r line; do\n{what}\ndone <<'END'\n{lines}END"
