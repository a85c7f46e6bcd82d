"""A full file system, a real one: whichever command it strikes, the machine is before or after, and says which."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests import crash_picture
from tests.crash import FULL, Mode, Victim
from tests.crash_scenarios import TWO, TWO_MANIFEST, Crashes, crashes_on, must, one_of

VERBS = (
    ["apply", "apply, unhealthy", "apply of a sealed layer", "rollback", "rollback with state"] if FULL else ["apply"]
)
MEGABYTES = 128
INODES = 6000


@pytest.fixture(scope="module")
def crashes(running_lab: labs.Lab, module_disk: Path) -> Iterator[Crashes]:
    """A machine whose /data is a small ext4."""
    image, data = module_disk / "disk", labs.machine(running_lab, "lab-3").data
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", str(INODES), image], check=True)
    victim = Victim(running_lab, "lab-3", module_disk / "lab-3", shims=module_disk / "shims")
    victim.power_off()
    subprocess.run(["mount", "-o", "loop", image, data], check=True)
    try:
        wanted = ("two", "restored", "back", "again") if FULL else ("two",)
        with crashes_on(running_lab, module_disk, range(3, 4), wanted) as made:
            yield made
    finally:
        victim.power_off()
        subprocess.run(["umount", data], check=True)
        labs.restart(running_lab, "lab-3")


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("mode", [Mode.BLOCKS, Mode.INODES], ids=lambda mode: mode.value)
def test_disk_that_gets_full_anywhere(crashes: Crashes, name: str, mode: Mode) -> None:
    """From any command on there is no block, or no inode, left: exit 0 and after, or 3 or 9 and before; never 20."""
    wrong = crashes.enumerate(name, mode) if FULL else crashes.crash(iter([one_of(name, mode)]), [])
    must(not wrong, "\n\n".join([f"{len(wrong)} went wrong", *wrong]))


LEFT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128)
"""Blocks of 4 KiB, or inodes, that a script leaves free for what follows it."""


@pytest.mark.parametrize("left", LEFT if FULL else LEFT[3:4])
@pytest.mark.parametrize("kind", ["blocks", "inodes"])
def test_script_that_fills_the_disk(crashes: Crashes, kind: str, left: int) -> None:
    """What a script leaves is too little for one step or another of what follows, or enough: before or after."""
    victim = crashes.victims[0]
    victim.load(crashes.folder / "one")
    victim.start(crashes.pictures["one"])
    fill = {
        "blocks": f"dd if=/dev/zero of=/opt/fill bs=4096 2>/dev/null || :; truncate -s -$((4096 * {left})) /opt/fill",
        "inodes": f"mkdir /opt/fill; (n=0; while : >/opt/fill/$n; do n=$((n + 1)); done) 2>/dev/null || :;"
        f"n=0; while [ $n -lt {left} ]; do rm /opt/fill/$n; n=$((n + 1)); done",
    }[kind]
    done = victim.attempt(
        "apply", "-", mode=Mode.KILL, stdin=victim.migration("20250102-003_fills", f"{TWO}\n{fill}", **TWO_MANIFEST)
    )
    assert done.code in {0, 9}, done.text
    if done.code == 9:
        now = victim.picture_of(crashes.pictures["one"])
        must(now == crashes.pictures["one"], done.text)
    assert not crash_picture.leftovers(victim.data, victim.init)
    victim.sh("rm -rf /data/system/staging/*/upper/opt/fill")
    if done.code == 0:
        assert victim.run("/data/system/runner/system-migrate", "rollback", "1").code == 0
        victim.sh("rm -rf /data/system/layers/20250102-003_fills/opt/fill")
    after = victim.apply("20250102-004_next", "echo next >/etc/next")
    assert after.code == 0, after.text
