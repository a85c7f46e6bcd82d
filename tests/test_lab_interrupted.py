"""A lab survives being killed between any two of its steps: the same command again completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab import Lab
from pyinfra_overlaymig.lab.base import base_root

# Runs the program and kills it with SIGKILL right before the n-th program that it starts, or tree that it removes.
KILLED = """\
import os, signal, sys
from pyinfra_overlaymig.lab import run
left = int(sys.argv.pop(1))
def before(real):
    def call(*args, **keywords):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **keywords)
    return call
run._complete = before(run._complete)
os.posix_spawn = before(os.posix_spawn)
for name in ("fleet", "machine"):
    there = sys.modules[f"pyinfra_overlaymig.lab.{name}"]
    there.remove_tree = before(there.remove_tree)
from pyinfra_overlaymig.cli.main import main
main()
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="overlaymig-lab-", dir="/var/tmp"))
    lab = Lab.at(directory)
    yield lab
    labs.down(lab)


def traces(lab: Lab) -> list[str]:
    """What the lab has on the host, as far as another lab's tests cannot disturb the answer."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    interfaces = [path.name for path in Path("/sys/class/net").iterdir()]
    lines = [*mounts, *interfaces, *listed("nft", "list", "ruleset"), *listed("ps", "-eo", "args")]
    return [line for line in lines if lab.tag in line or f"{lab.directory}/" in line]


def listed(*argv: str) -> list[str]:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()


def killed(lab: Lab, step: int, *words: str) -> bool:
    """Run `overlaymig lab WORDS`, killed before its ``step``-th step; False when it has fewer."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(step), "lab", *words],
        check=False, capture_output=True, env=os.environ | {"OVERLAYMIG_LAB_DIR": str(lab.directory)},
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def test_up_killed_before_any_of_its_steps_is_completed_by_the_next(lab: Lab) -> None:
    step = 0
    while killed(lab, step, "up", "-n", "1"):
        (machine,) = labs.up(lab, 1)
        argv = [*labs.ssh_argv(lab, machine), "true"]
        assert subprocess.run(argv, check=False).returncode == 0, f"killed before step {step}"
        labs.down(lab)
        assert traces(lab) == [], f"killed before step {step}"
        assert not lab.directory.exists()
        step += 1
    assert step > 10, "the steps were counted"


def test_down_killed_before_any_of_its_steps_is_completed_by_the_next(lab: Lab) -> None:
    step = 0
    labs.up(lab, 1)
    while killed(lab, step, "down"):
        labs.down(lab)
        assert traces(lab) == [], f"killed before step {step}"
        assert not lab.directory.exists()
        labs.up(lab, 1)
        step += 1
    assert step > 5, "the steps were counted"


def test_a_machine_half_made_hinders_no_other(lab: Lab) -> None:
    """Promise: what a killed `up -n 2` left of lab-2 is no trouble for lab-1, nor for lab-2."""
    (lab.machines / "lab-2").mkdir(parents=True)
    assert [machine.name for machine in labs.up(lab, 1)] == ["lab-1"]
    assert labs.restart(lab, "lab-2").running


def test_a_killed_base_build_leaves_no_process_and_is_redone(tmp_path: Path) -> None:
    """Promise: a killed build of the base root ends at once, and the next one cleans up."""
    cache, fakes, pids = tmp_path / "cache", tmp_path / "bin", tmp_path / "pids"
    fakes.mkdir()
    slow = fakes / "mmdebstrap"
    slow.write_text(f"#!/bin/sh\ntouch {pids}\nsleep 1234 & sleep 1234\n")
    slow.chmod(0o755)
    program = (
        "import sys; from pathlib import Path; from pyinfra_overlaymig.lab.base import base_root;"
        "base_root(Path(sys.argv[1]), print)"
    )
    environment = os.environ | {"PATH": f"{fakes}:{os.environ['PATH']}"}
    build = subprocess.Popen([sys.executable, "-c", program, cache], env=environment)
    until(pids.exists)
    build.kill()
    build.wait()
    until(lambda: "sleep 1234" not in listed("ps", "-eo", "args"))
    assert list(cache.glob("building-*"))
    quick = 'for word; do case $word in */root) mkdir -p "$word/etc/ssh" ;; esac; done'
    slow.write_text(f"#!/bin/sh\n{quick}\n")
    subprocess.run([sys.executable, "-c", program, cache], env=environment, check=True)
    assert list(cache.glob("building-*")) == []
    (root,) = cache.glob("base-*")
    assert (root / "etc/s6/services/sshd/run").stat().st_mode & 0o777 == 0o755
    assert base_root(cache, print) == root


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
