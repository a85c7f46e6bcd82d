"""200 MB of files/ on their way to a machine: packed, sent by pyinfra, unpacked and checked there; beside scp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from pyinfra_overlaymig import lab as labs
from tests.bench.host import TOP
from tests.bench.inside import Failed
from tests.bench.line import NOW, Figures, Group, Line, Variant
from tests.bench.session import Bench, settled
from tests.rig import Rig

_SCP = "scp"
_ID = "20250101-001_upload"
_FILES, _SIZE = 20, 10_000_000
_PATIENCE = 300.0
_BEGINS, _ARRIVED = f"{_ID}: large", "==> running the install script"
_DEPLOY = """\
from pyinfra_overlaymig.operations import migration_applied

migration_applied(name="Apply it", migration={folder!r})
"""


def measure(bench: Bench) -> None:
    """Random bytes, which nothing makes smaller: by both, to the same disk of the same machine, encrypted."""
    rig = bench.rig()
    folder = _migration(bench)
    variants = [
        Variant(NOW, partial(_by_migration, bench, rig, folder)),
        Variant(_SCP, partial(_by_scp, bench, rig, folder)),
    ]
    bench.rounds(variants, full=9, quick=3)


def _migration(bench: Bench) -> Path:
    folder = bench.directory / "upload" / _ID
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files/opt").mkdir(parents=True)
    (folder / "migration.yaml").write_text("description: large\n")
    (folder / "install.sh").write_text("#!/bin/sh\nset -eu\n:\n")
    for number in range(_FILES):
        (folder / f"files/opt/{number}").write_bytes(os.urandom(_SIZE))
    return folder


def _by_scp(bench: Bench, rig: Rig, folder: Path) -> Figures:
    rig.sh("rm -rf /data/upload; mkdir /data/upload")
    bench.rest(rig)
    *ssh, login = labs.ssh_argv(rig.lab, rig.machine)
    argv: list[str | Path] = ["scp", "-q", "-r", *ssh[1:], folder, f"{login}:/data/upload"]
    began = time.monotonic()
    subprocess.run(argv, check=True, timeout=_PATIENCE)
    return {"upload": time.monotonic() - began}


def _by_migration(bench: Bench, rig: Rig, folder: Path) -> Figures:
    """From the plan, which is shown before anything is packed, until the machine has all, checked, and begins."""
    rig.reset()
    settled(rig)
    deploy = bench.directory / "upload/deploy.py"
    deploy.write_text(_DEPLOY.format(folder=str(folder)))
    bench.rest(rig)
    argv: list[str | Path]
    argv = [Path(sys.executable).with_name("pyinfra"), "-y", "--limit", rig.name, TOP / "inventories/lab.py", deploy]
    at: dict[str, float] = {}
    said = []
    with subprocess.Popen(argv, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout or ():
            said.append(line)
            at |= {mark: time.monotonic() for mark in (_BEGINS, _ARRIVED) if mark in line}
    if running.returncode or len(at) != 2:
        raise Failed(f"pyinfra exits {running.returncode}: {''.join(said)[-500:]}")
    return {"upload": at[_ARRIVED] - at[_BEGINS]}


GROUP = Group(
    "upload",
    80,
    (Line("upload", "200 MB of files/, packed, sent and checked, by scp -r", "s", 2.0, of=NOW, over=_SCP),),
    measure,
    minutes=5,
    quick=60,
)
