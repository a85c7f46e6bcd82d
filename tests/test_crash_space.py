"""A full file system, a real one: whichever command it strikes, the machine is before or after, and says which."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests.crash import lanes, picture
from tests.crash.crashes import Crashes, crashes_on, must
from tests.crash.lanes import Case
from tests.crash.modes import Mode
from tests.crash.scenarios import TWO, TWO_MANIFEST
from tests.crash.victim import FULL, Victim
from tests.rig import RUNNER

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
    victim = Victim(running_lab, "lab-3", module_disk / "lab-3")
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
    """From any call on there is no block, or no inode, left: exit 0 and after, or 3 or 9 and before; never 20."""
    total = lanes.count(crashes, [name])[name]
    # That each call that needs space is refused it is what test_runner_crash.py does; here the disk is really full.
    cases = lanes.all_of(name, mode, total)[::20] if FULL else [Case(name, mode, 1 + lanes.SEED * 97 % total)]
    wrong = lanes.strike(crashes, cases)
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
    bundle = victim.migration("20250102-003_fills", f"{TWO}\n{fill}", **TWO_MANIFEST)
    done = victim.run(RUNNER, "apply", "-", stdin=bundle)
    assert done.code in {0, 9}, done.text
    if done.code == 9:
        now = victim.picture_of(crashes.pictures["one"])
        must(now == crashes.pictures["one"], done.text)
    assert not picture.leftovers(victim.data, victim.init)
    victim.sh("rm -rf /data/system/staging/*/upper/opt/fill")
    if done.code == 0:
        assert victim.run(RUNNER, "rollback", "1").code == 0
        victim.sh("rm -rf /data/system/layers/20250102-003_fills/opt/fill")
    after = victim.apply("20250102-004_next", "echo next >/etc/next")
    assert after.code == 0, after.text
