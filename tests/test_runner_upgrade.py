"""A machine that the runner in sh prepared, and that has layers of it, gets the one in Python while its services run.

fixtures/runner-sh.tar.gz is that runner, as machine_prepared uploaded it last.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.migration.runner import LAUNCHER, runner_archive
from tests.rig import RUNNER, Rig
from tests.test_end_to_end import pyinfra
from tests.test_runner_boot import settled

OLD = Path(__file__).parent / "fixtures/runner-sh.tar.gz"
ONE, TWO, THREE = "20250101-001_one", "20250102-001_two", "20250103-001_three"
PIDS = "s6-svstat -o pid /run/service/app; s6-svstat -o pid /run/service/sshd"


@pytest.fixture
def old(fresh: Rig) -> Rig:
    """A machine that boots through the runner in sh and has two migrations of it, state, a service, and drift."""
    fresh.sh("rm -rf /data/system/runner /data/system/migrations/metadata.json /data/system/base-services")
    install = 'd=$(mktemp -d); tar -xz -C "$d"; sh "$d/system-migrate" init; rm -rf "$d"'
    fresh.sh(install, stdin=OLD.read_bytes())
    lab.restart(fresh.lab, fresh.name)
    fresh.sh(f"file=$(readlink -f {RUNNER}); head -n 3 $file | grep -q dispatcher")
    script = "mkdir -p /var/lib/app; echo kept >/var/lib/app/data; echo one >/etc/one"
    service = {"app": {"run": "exec sleep 1111", "check": "true"}}
    result = fresh.apply(ONE, script, state=["/var/lib/app"], services=service)
    assert result.code == 0, result.text
    assert fresh.apply(TWO, "echo two >/etc/two; rm /etc/issue").code == 0
    fresh.sh("echo by-hand >/etc/by-hand")
    return fresh


def test_machine_of_the_runner_in_sh_is_prepared_live(old: Rig) -> None:
    """By machine_prepared alone: no service restarts, nothing is switched; then all goes on, backward and forward."""
    before = old.sh(PIDS)
    mounts = old.sh("cat /proc/self/mountinfo")
    done = pyinfra("-y", "--limit", old.name, "deploys/prepare.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (old.sh(PIDS), old.sh("cat /proc/self/mountinfo")) == (before, mounts)
    status = old.status()
    assert (status.stack, status.generation, status.running) == ((ONE, TWO), 2, 2)
    assert [one.status for one in status.migrations] == ["applied", "applied"]
    assert status.troubles == ()
    result = old.apply(THREE, "test $(cat /etc/two) = two; echo three >/etc/three")
    assert result.code == 0, result.text
    assert old.sh(PIDS) == before
    assert old.run(RUNNER, "rollback", "1").code == 0
    old.sh("test ! -e /etc/two; test -e /etc/issue; test ! -e /etc/three; cat /etc/by-hand /var/lib/app/data")
    assert old.run(RUNNER, "rollback", THREE).code == 0
    lab.restart(old.lab, old.name)
    settled(old)
    old.sh("cat /etc/one /etc/two /etc/three /etc/by-hand /var/lib/app/data; test ! -e /etc/issue")
    assert [one.name for one in old.status().services if one.ready] == ["app", "sshd"]


def test_byte_code_of_another_python_is_made_anew(fresh: Rig) -> None:
    """What came with the runner is taken where it is this Python's; where one piece is not, all is compiled here."""
    install = f"""
        d=$(mktemp -d); tar -xz -C "$d"; cd "$d/pyinfra_overlaymig/runner/__pycache__"; sha256sum <$(echo cli.*)
        HOW
        rm -rf /data/system/runner; sh "$d/{LAUNCHER}" init >&2; rm -rf "$d"
        sha256sum </data/system/runner/current/pyinfra_overlaymig/runner/__pycache__/$(echo cli.*)
    """.replace("$(echo cli.*)", f"cli.{sys.implementation.cache_tag}.pyc")
    broken = (":", "rm cli.*", "for f in cli.*; do printf xxxx | dd of=$f conv=notrunc; done")
    sent, gone, other = (fresh.sh(install.replace("HOW", how), stdin=runner_archive()).splitlines() for how in broken)
    assert sent[0] == sent[1]
    assert gone[1] == other[1]
    assert fresh.run(RUNNER, "version").code == 0


def test_what_the_runner_in_sh_left_half_done_is_finished(old: Rig) -> None:
    """Its journals are the same files: a migration past its commit is finished, one before it is undone."""
    half = "20250104-001_half"
    old.sh(
        f"rm /data/system/migrations/{TWO}/applied; mkdir -p /data/system/staging/{TWO}/state"
        f" /data/system/staging/{half}/upper; echo plan >/data/system/staging/{half}/plan"
    )
    old.prepare()
    result = old.run(RUNNER, "recover")
    assert result.code == 0, result.text
    assert f"{TWO} was interrupted after its commit: finishing it" in result.text
    assert f"{half} was interrupted before its commit: undone" in result.text
    assert [one.status for one in old.status().migrations] == ["applied", "applied"]
    assert [one.id for one in old.status().evidence] == [half]
