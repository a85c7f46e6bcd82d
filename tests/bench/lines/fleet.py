"""One trivial migration for 50 lab machines by pyinfra, the first that they get: what an operator waits for."""

from __future__ import annotations

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

_MACHINES = 50
_PATIENCE = 300.0

_DEPLOY = """\
from pyinfra_overlaymig.operations import machine_prepared, migration_applied

machine_prepared(name="Prepare the machine")
migration_applied(name="Apply it", migration={folder!r})
"""


def measure(bench: Bench) -> None:
    """The whole program, as an operator types it, over ssh; the machines are new in each round, unmeasured."""
    variants = [Variant(NOW, partial(_apply, bench))]
    bench.rounds(variants, full=3, quick=1)


def _apply(bench: Bench) -> Figures:
    bench.say(f"  starting {_MACHINES} machines")
    with bench.own_lab(_MACHINES) as lab:
        rigs = [Rig(lab, found.name, bench.directory / "fleet") for found in labs.machines(lab)]
        for rig in rigs:
            settled(rig)
        rigs[0].migration("20250101-001_trivial", "echo hello >/etc/hello")
        deploy = bench.directory / "deploy.py"
        deploy.write_text(_DEPLOY.format(folder=str(bench.directory / "fleet/20250101-001_trivial")))
        bench.rest(rigs[0])
        begun = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("pyinfra"), "-y", TOP / "inventories/lab.py", deploy],
            cwd=TOP, capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        bench.keep("fleet.log", done.stdout + done.stderr)
        lacking = [rig.name for rig in rigs if rig.status().generation != 1]
        if done.returncode or lacking:
            raise Failed(f"pyinfra exits {done.returncode}, without it are {lacking}; fleet.log has what it said")
    return {"fleet.first": seconds}


GROUP = Group(
    "fleet",
    90,
    (Line("fleet.first", f"{_MACHINES} lab machines, one trivial migration for all, first apply", "s", 12),),
    measure,
    minutes=12,
    quick=75,
)
