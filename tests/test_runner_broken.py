"""Layers that lost what everything stands on: python3, the loader, /bin/sh, coreutils, s6. The machine comes back."""

from __future__ import annotations

import time

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.lab import namespaces
from pyinfra_overlaymig.lab.machine import start
from tests.rig import RUNNER, Rig

LOADER = "rm -f /lib64/ld-linux-* /usr/lib/*-linux-gnu/ld-linux-*"
COREUTILS = "dpkg -L coreutils | grep -E '^(/usr)?/s?bin/.' >/run/list; xargs -a /run/list rm -f"
LOSSES = {
    "python3": "rm -rf /usr/bin/python3* /usr/lib/python3*",
    "loader": LOADER,
    "sh": "rm -f /bin/sh /bin/dash /bin/bash",
    "coreutils": COREUTILS,
    "s6": "dpkg -r --force-depends s6",
}
# What is down by its own wish is not waited for: these layers keep sshd from ever getting ready.
NO_SSHD = "s6-svc -wD -d /run/service/sshd; touch /etc/s6/services/sshd/down"
BROKEN = "20250101-001_broken"


@pytest.fixture(scope="module")
def broken(rig: Rig) -> Rig:
    """One machine for all that ends as it began."""
    rig.sh(NO_SSHD)
    return rig


def rescued(rig: Rig, *argv: str) -> str:
    """The runner called from the host, in the view of the base, with the base's own sh."""
    done = rig.rescue("/bin/sh", RUNNER, *argv)
    assert done.code == 0, done.text
    return done.out


def status(rig: Rig) -> Status:
    return parse(rescued(rig, "status"))


def power_cycle(rig: Rig) -> None:
    """A restart of a machine that need not answer ssh afterwards."""
    start(rig.machine.place, namespaces.ground(rig.lab.cache, lambda _: None))
    deadline = time.monotonic() + 60
    while not rig.machine.running or rig.rescue("/usr/bin/test", "-e", "/run/service/.s6-svscan").code:
        assert time.monotonic() < deadline, rig.machine.console.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("what", LOSSES)
def test_loss_that_is_reverted(broken: Rig, what: str) -> None:
    """A health check that says no, or cannot even be started: all is as before."""
    before = broken.tree()
    done = broken.apply(BROKEN, LOSSES[what], verify="exit 1")
    assert done.code == 9, done.text
    assert "verify.sh" in done.text
    assert broken.tree() ^ before == frozenset()


@pytest.mark.parametrize("what", LOSSES)
def test_loss_that_is_kept_can_be_rolled_back(broken: Rig, what: str) -> None:
    """Nothing says no: the migration stays, the machine runs on, and the runner still goes back."""
    layer = f"20250101-001_{what}"
    before = broken.tree()
    done = broken.apply(layer, LOSSES[what])
    assert done.code == 0, done.text
    assert status(broken).stack == (layer,)
    rescued(broken, "rollback", "0")
    assert status(broken).stack == ()
    # The layer is there still, and the number of the generation another one.
    assert {line for line in broken.tree() ^ before if "/" in line} == set()


@pytest.mark.parametrize("what", ["loader", "coreutils", "sh"])
def test_open_shell_is_enough_for_a_rollback(broken: Rig, what: str) -> None:
    """With a shell that was started before, and nothing but what it has built in: the runner is read into it."""
    script = f"""
    cat >/run/bundle; {RUNNER} apply /run/bundle || exit 1
    set -- rollback 0; . {RUNNER}
    """
    done = broken.run("/bin/sh", "-c", script, stdin=broken.migration(f"20250101-001_{what}", LOSSES[what]))
    assert done.code == 0, done.text
    assert status(broken).stack == ()


@pytest.mark.parametrize("what", ["python3", "coreutils"])
def test_boot_that_needs_nothing_of_what_is_lost(broken: Rig, what: str) -> None:
    """The runner boots the generation with the base's tools, and the boot counts as one that went well."""
    layer = f"20250101-001_{what}"
    assert broken.apply(layer, LOSSES[what]).code == 0
    power_cycle(broken)
    deadline = time.monotonic() + 30
    while (found := status(broken)).failed_boots and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (found.stack, found.running, found.failed_boots) == ((layer,), found.generation, 0)
    rescued(broken, "rollback", "0")


def test_boot_with_a_program_that_cannot_be_loaded_falls_back_at_once(broken: Rig) -> None:
    """The kernel refuses CMD, or would start what ends at once for want of a library: the same boot has the base."""
    program = "/usr/bin/s6-svscan"
    losses = {
        "loader": LOADER,
        "s6": LOSSES["s6"],
        "library": "rm /usr/lib/*-linux-gnu/libskarnet.so.*",
        "script": f"printf '#!/nowhere/sh\\n' >{program}.new; chmod 755 {program}.new; mv {program}.new {program}",
        "noise": f"printf noise >{program}.new; chmod 755 {program}.new; mv {program}.new {program}",
        "mode": f"chmod 644 {program}",
    }
    for number, (name, script) in enumerate(losses.items(), start=1):
        assert broken.apply(f"20250102-00{number}_{name}", script).code == 0
        power_cycle(broken)
        said = broken.machine.console.read_text()
        assert "s6-svscan cannot be started: " in said, name
        found = status(broken)
        assert (found.stack, found.generations[-1].instead_of) == ((), found.generation - 1), name
        assert found.running == found.generation
        assert found.failed_boots == 0
    broken.sh(f"test -x {program}; s6-svok /run/service/sshd")


def test_boots_count_from_before_their_switch(fresh: Rig) -> None:
    """A process 1 that ends at once, or services that no shell can start: the fourth boot has the generation before."""
    assert fresh.apply("20250101-001_good", "echo good >/etc/good").code == 0
    ends = "printf '#!/bin/sh\\nexit 1\\n' >/usr/bin/s6-svscan.new; chmod 755 /usr/bin/s6-svscan.new; cd /usr/bin"
    assert fresh.apply("20250102-001_ends", f"{ends}; mv s6-svscan.new s6-svscan").code == 0
    place, ground = fresh.machine.place, namespaces.ground(fresh.lab.cache, lambda _: None)
    for failed in (1, 2, 3):
        runs = start(place, ground)
        while runs():
            time.sleep(0.05)
        assert f"generation 2\nfailed {failed}\n" == (fresh.machine.data / "system/boots").read_text()
    lab.restart(fresh.lab, fresh.name)
    assert (fresh.status().stack, fresh.status().generation) == (("20250101-001_good",), 3)
    assert fresh.apply("20250103-001_sh", LOSSES["sh"]).code == 0
    for failed in (1, 2, 3):
        power_cycle(fresh)
        assert (status(fresh).generation, status(fresh).failed_boots) == (4, failed)
    lab.restart(fresh.lab, fresh.name)
    assert fresh.status().stack == ("20250101-001_good",)
