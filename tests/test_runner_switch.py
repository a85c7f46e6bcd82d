"""The live switch: nothing that runs, and nothing that was changed by hand, is lost by it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig

# Makes a file in every turn, replaces one by rename and deletes some: about a turn a millisecond.
WRITER = """
mkdir -p /srv/turns; turn=0
while [ ! -e /run/enough ]; do
    turn=$((turn + 1)); echo $turn >/srv/turns/$turn; echo $turn >/srv/new; mv /srv/new /srv/last
    [ $((turn % 7)) -ne 0 ] || rm /srv/turns/$((turn - 3))
done
echo $turn >/srv/done
"""


def test_drift_of_the_very_moment_is_kept(fresh: Rig) -> None:
    """A program that makes files without a pause across switches finds every one of them afterwards."""
    with subprocess.Popen(fresh.machine.enter("/bin/sh", "-c", WRITER)) as writer:
        for number in range(1, 4):
            result = fresh.apply(f"20250101-00{number}_switch", f"echo {number} >/etc/switch")
            assert result.code == 0, result.text
        fresh.sh(": >/run/enough")
        assert writer.wait(30) == 0
    turns = int(fresh.sh("cat /srv/done"))
    assert int(fresh.sh("cat /srv/last")) == turns
    kept = {int(name) for name in fresh.sh("ls /srv/turns").split()}
    deleted = {turn - 3 for turn in range(7, turns + 1, 7)}
    assert set(range(1, turns + 1)) - deleted - kept == set()
    # Made before a pivot and deleted in the instant after it, while drift was brought over: a few at most.
    assert len(kept & deleted) <= 6


def test_daemon_keeps_writing_to_its_open_file(fresh: Rig) -> None:
    """What a process writes to a file that it opened before the switch is in that file after it."""
    fresh.sh("(while sleep 0.1; do echo tick; done >/srv/ticks 2>&1 &) ; sleep 0.5")
    assert fresh.apply("20250101-001_switch", ":").code == 0
    fresh.sh("n=$(wc -l </srv/ticks); sleep 1; test $(wc -l </srv/ticks) -gt $n")


def test_drift_survives_switch_and_restart(fresh: Rig) -> None:
    """Files made, changed and deleted by hand stay so, through switches and a restart that resets the base."""
    fresh.sh("echo by-hand >/etc/by-hand; rm /etc/issue; chmod 700 /srv; mv /etc/default /etc/elsewhere")
    assert fresh.apply("20250101-001_switch", "echo x >/etc/switch").code == 0
    check = "grep -q by-hand /etc/by-hand; test ! -e /etc/issue; test $(stat -c %a /srv) = 700; test -d /etc/elsewhere"
    fresh.sh(check)
    lab.restart(fresh.lab, fresh.name)
    fresh.sh(f"{check}; test $(cat /etc/switch) = x; test ! -e /etc/default")


def test_a_layer_that_breaks_the_system_can_be_taken_back(fresh: Rig) -> None:
    """The runner works from the base: a migration that removes libc is reverted all the same."""
    before = fresh.tree()
    result = fresh.apply("20250101-001_broken", "mv /usr/lib/*-linux-gnu/libc.so.6 /usr/lib/libc.gone", verify="exit 0")
    assert result.code == 9, result.text
    assert "reverting to generation 0" in result.text
    assert fresh.tree() ^ before == frozenset()


def test_no_mount_is_left_over_by_switches(fresh: Rig) -> None:
    """Five switches leave as many mounts as one."""
    assert fresh.apply("20250101-001_first", ":").code == 0
    count = "grep -c . /proc/self/mountinfo"
    mounts = fresh.sh(count)
    for number in range(2, 6):
        assert fresh.apply(f"20250101-00{number}_more", ":").code == 0
    assert fresh.sh(count) == mounts
    # `live`, the one it names, the one before, and the one that the switch before left to be swept.
    assert len(fresh.sh("ls /data/system/upper").split()) <= 4


def test_what_was_mounted_by_hand_is_unmounted_by_one_umount(fresh: Rig) -> None:
    """A switch carries it, also what is mounted in it and over files, and leaves no copy below."""
    fresh.sh("mount -t tmpfs none /opt; mkdir /opt/in; mount -t tmpfs none /opt/in")
    fresh.sh("mount --bind /etc/hostname /etc/issue")
    for number in (1, 2):
        assert fresh.apply(f"20250101-00{number}_more", "echo x >/etc/more").code == 0
    fresh.sh("umount /opt/in /opt /etc/issue; ! grep -E ' /opt| /etc/issue' /proc/self/mountinfo")


@pytest.fixture
def small_disk(fresh: Rig, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A machine whose /data is a real file system of 60 MB, or as many as the test says."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(getattr(request, "param", 60) << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    data = fresh.machine.data
    subprocess.run(["mount", "-o", "loop", image, data], check=True)
    try:
        lab.restart(fresh.lab, fresh.name)
        fresh.prepare()
        yield fresh
    finally:
        subprocess.run(["umount", "-l", data], check=True)
        lab.restart(fresh.lab, fresh.name)


def test_too_little_room_is_refused_before_anything(small_disk: Rig) -> None:
    """A disk that is too full for the migration refuses it, with how much is missing."""
    before = small_disk.tree()
    result = small_disk.apply("20250101-001_room", ":")
    assert result.code == 3, result.text
    assert "KiB free in /data" in result.text
    assert small_disk.tree() ^ before == frozenset()


@pytest.mark.parametrize("small_disk", [330], indirect=True)
def test_a_snapshot_that_does_not_fit_is_refused_before_anything(small_disk: Rig) -> None:
    """Of a layer that comes again as well, by a rollback forward or by applying it once more."""
    make = "mkdir -p /srv/big; dd if=/dev/urandom of=/srv/big/x bs=1M count=60 2>/dev/null"
    assert small_disk.apply("20250101-001_big", make, state=["/srv/big"]).code == 0
    again = small_disk.migration("20250102-001_snap", "echo x >/srv/big/y", state=["/srv/big"], snapshot=True)
    assert small_disk.run(RUNNER, "apply", "-", stdin=again).code == 0
    assert small_disk.run(RUNNER, "rollback", "1").code == 0
    fill = "free=$(df -k --output=avail /data | tail -n 1); head -c $(((free - 75000) * 1024)) /dev/zero >/data/fill"
    small_disk.sh(fill)
    before = small_disk.tree()
    for done in (small_disk.run(RUNNER, "rollback", "2"), small_disk.run(RUNNER, "apply", "-", stdin=again)):
        assert (done.code, "the snapshots of 20250102-001_snap need 6" in done.text) == (3, True), done.text
    assert small_disk.tree() ^ before == frozenset()
    small_disk.sh('test -z "$(ls /data/system/snapshots)"; test ! -e /data/system/rollback; rm /data/fill')
    assert small_disk.run(RUNNER, "rollback", "2").code == 0


def test_400_layers_mount(fresh: Rig) -> None:
    """A stack of 400 layers assembles: its names fit the page that mount options have."""
    assert fresh.apply("20250101-001_first", "echo x >/etc/first").code == 0
    fresh.sh(
        """
        cd /data/system
        for n in $(seq -w 001 400); do
            id=20250102-${n}_layer_with_quite_a_long_name
            mkdir -p layers/$id/opt migrations/$id
            echo $n >layers/$id/opt/$n
            cp migrations/20250101-001_first/* migrations/$id/
            echo layer $id
        done >>generations/1
        """
    )
    lab.restart(fresh.lab, fresh.name)
    assert fresh.sh("ls /opt | wc -l").strip() == "400"
    assert fresh.sh("cat /etc/first; cat /run/system-migrate/running") == "x\n1\n"
    assert fresh.run(RUNNER, "status").code == 0
