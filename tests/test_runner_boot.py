"""Boot: whatever is wrong with the layers, the machine comes up, and says what it runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from pyinfra_overlaymig import lab
from tests.crash.modes import Mode
from tests.crash.scenarios import COMMITTED
from tests.crash.victim import Strike, Victim
from tests.rig import RUNNER, Rig
from tests.runner_process import SETTLING


def test_layer_with_broken_tools_does_not_stop_the_boot(fresh: Rig) -> None:
    """A layer whose cp, ln, mv and the like fail boots all the same: the base's are used."""
    broken = "printf '#!/bin/sh\\nexit 1\\n' >$tool; chmod 755 $tool"
    script = f"cd /usr/local/bin; for tool in cp ln mv rm readlink sed; do {broken}; done"
    assert fresh.apply("20250101-001_broken", script).code == 0
    lab.restart(fresh.lab, fresh.name)
    assert fresh.status().running == 1
    assert [one.name for one in fresh.status().services] == ["sshd"]
    fresh.sh("/usr/bin/rm -rf /data/system /data/state")


def test_generation_that_is_not_whole_falls_back(fresh: Rig) -> None:
    """A layer that is missing: the last generation that can be assembled boots, in the end the base, and it is said."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    assert fresh.apply("20250102-001_two", "echo x >/etc/two").code == 0
    fresh.sh("cd /data/system/layers; mv 20250102-001_two .hidden")
    lab.restart(fresh.lab, fresh.name)
    status = fresh.status()
    assert (status.generation, status.running, status.stack) == (3, 3, ("20250101-001_one",))
    assert [one.instead_of for one in status.generations] == [None, None, 2]
    assert "falling back from generation 2 to the layers of generation 1" in fresh.machine.console.read_text()
    fresh.sh("cd /data/system/layers; mv 20250101-001_one .one")
    lab.restart(fresh.lab, fresh.name)
    assert (fresh.status().running, fresh.status().stack) == (4, ())
    fresh.sh("cd /data/system/layers; mv .hidden 20250102-001_two; mv .one 20250101-001_one")
    result = fresh.run(RUNNER, "rollback", "2")
    assert result.code == 0, result.text
    fresh.sh("cat /etc/one /etc/two")


def settled(rig: Rig) -> None:
    """Wait for the end of what a boot does in the background."""
    rig.sh(f"for i in $(seq 300); do pgrep -f '{SETTLING}' >/dev/null || exit 0; sleep 0.1; done; exit 1")


def test_services_that_never_get_ready_after_boot_fall_back(fresh: Rig) -> None:
    """A service that came up while it was applied and does at no boot: after three in a row, the generation before."""
    assert fresh.apply("20250101-001_good", "", services={"good": {"run": "exec sleep 1111"}}).code == 0
    fresh.sh("touch /run/only-now")
    service = {"bad": {"run": "test -e /run/only-now && exec sleep 2222", "ready_timeout": 8}}
    assert fresh.apply("20250102-001_bad", "echo x >/etc/bad", services=service).code == 0
    for failed in (1, 2):
        lab.restart(fresh.lab, fresh.name)
        settled(fresh)
        assert (fresh.status().generation, fresh.status().failed_boots) == (2, failed)
    lab.restart(fresh.lab, fresh.name)
    settled(fresh)
    status = fresh.status()
    assert (status.generation, status.running, status.failed_boots) == (3, 3, 0)
    assert status.generations[-1].instead_of == 2
    assert [one.name for one in status.services if one.ready] == ["good", "sshd"]
    fresh.sh("test ! -e /etc/bad")
    said = fresh.machine.console.read_text()
    assert "not ready after this boot: bad (boot 3 of 3 before falling back)" in said
    lab.restart(fresh.lab, fresh.name)
    settled(fresh)
    assert (fresh.status().generation, fresh.status().failed_boots) == (3, 0)


def test_check_tries_what_it_needs_and_leaves_nothing(fresh: Rig) -> None:
    """An overlay on /data was mounted and is gone again."""
    seen = "cat /proc/self/mountinfo; ls -A /data/system/staging"
    before = fresh.sh(seen)
    done = fresh.run(RUNNER, "check")
    assert (done.code, done.out, done.err) == (0, "==> this machine has all that migrations need\n", "")
    assert fresh.sh(seen) == before


def test_boot_of_a_running_machine_is_refused(fresh: Rig) -> None:
    """The entrypoint called by hand would take services from under their supervisors."""
    result = fresh.run(RUNNER, "boot", "--", "true")
    assert result.code == 3
    assert "has been booted" in result.err


def test_boot_that_can_assemble_nothing_runs_the_base(fresh: Rig) -> None:
    """What is wrong is not the layers: no fall-back helps, and the machine answers all the same."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    assert fresh.apply("20250102-001_two", "echo x >/etc/two").code == 0
    upper = fresh.machine.data / "system/upper"
    subprocess.run(["chattr", "+i", upper], check=True)
    try:
        lab.restart(fresh.lab, fresh.name)
        assert "not even the base alone can be assembled" in fresh.machine.console.read_text()
        fresh.sh("test ! -e /etc/one")
    finally:
        subprocess.run(["chattr", "-i", upper], check=True)
    assert len(fresh.sh("ls /data/system/generations").split()) < 8
    lab.restart(fresh.lab, fresh.name)
    assert fresh.run(RUNNER, "rollback", "2").code == 0
    fresh.sh("cat /etc/one /etc/two")


def test_changed_base_is_reported(fresh: Rig) -> None:
    """A generation that was made over another base says so at boot."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    fresh.sh("sed -i 's/^base .*/base 0123456789abcdef/' /data/system/generations/1")
    lab.restart(fresh.lab, fresh.name)
    assert "the base has changed since generation 1" in fresh.machine.console.read_text()
    assert fresh.status().troubles == ("the base has changed since generation 1 was made",)


def cut_off_after_commit(fresh: Rig, service: dict[str, Any]) -> None:
    """Apply a migration with that service; power goes right after the commit, and comes back."""
    bundle = fresh.migration(
        "20250101-001_cut",
        "echo x >/etc/cut; mkdir -p /var/lib/cut; echo s >/var/lib/cut/s",
        state=["/var/lib/cut"],
        services={"cut": service},
    )
    victim = Victim(fresh.lab, fresh.name, fresh.folder)
    done = victim.attempt("apply", "-", strike=Strike(Mode.POWER, when=COMMITTED), stdin=bundle)
    assert "generations" in done.where, done.text
    assert (victim.data / "system/generations/current").readlink() == Path("1")
    lab.restart(fresh.lab, fresh.name)


def test_migration_cut_off_after_its_commit_is_finished_by_the_boot(fresh: Rig) -> None:
    """Power goes right after the commit: the next boot runs the new generation and its service, and marks it."""
    cut_off_after_commit(fresh, {"run": "exec sleep 9999"})
    fresh.sh(
        "for i in $(seq 100); do [ ! -e /data/system/migrations/20250101-001_cut/applied ] || break; sleep 0.1; done"
    )
    fresh.sh("cat /etc/cut /var/lib/cut/s; test $(s6-svstat -o up /run/service/cut) = true")
    assert [one.status for one in fresh.status().migrations] == ["applied"]


def test_migration_cut_off_after_its_commit_is_taken_back_by_the_boot_that_finds_it_ill(fresh: Rig) -> None:
    """The same, but the service never gets ready: nobody has seen it work, so it is not marked but reverted."""
    cut_off_after_commit(fresh, {"run": "exec sleep 9999", "check": "false", "ready_timeout": 3})
    fresh.sh("for i in $(seq 300); do [ -e /data/system/migrations/20250101-001_cut ] || break; sleep 0.1; done")
    fresh.sh("test ! -e /etc/cut; test ! -e /run/service/cut; test ! -e /data/state/var/lib/cut")
    found = fresh.status()
    assert (found.migrations, found.generation, found.running) == ((), 0, 0)
