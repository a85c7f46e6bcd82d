"""Memory: what all processes of a lab machine at rest take, and a worker that waits for its confirmation.

PSS: a page that several processes have is shared out among them, so it depends on how many machines run: three do.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.bench.inside import Failed
from tests.bench.line import NOW, SH, Figures, Group, Line, Variant
from tests.bench.session import Bench
from tests.rig import RUNNER, Rig
from tests.runner_process import is_runner_process

_AFTER = 1.0
"""Seconds in which what only begins to wait does the rest of its work."""
_PATIENCE = 60


def measure(bench: Bench) -> None:
    """Nothing of the bench runs in the machines meanwhile."""
    rigs = {NOW: bench.rig(), SH: bench.old()}
    numbers = {series: itertools.count(1) for series in rigs}
    time.sleep(_AFTER)
    variants = [Variant(series, partial(_look, rig, numbers[series])) for series, rig in rigs.items()]
    bench.rounds(variants, full=5, quick=2)


def _look(rig: Rig, numbers: Iterator[int]) -> Figures:
    at_rest = sum(size for _, size in _processes(rig))
    id = f"20250101-{next(numbers):03}_trivial"
    bundle = rig.migration(id, "echo hello >/etc/hello")
    done = rig.run(RUNNER, "apply", "--confirm", str(_PATIENCE), "-", stdin=bundle)
    time.sleep(_AFTER)
    worker = sum(size for line, size in _processes(rig) if is_runner_process(line))
    if done.code or not worker:
        raise Failed(f"{id} on {rig.name} exits {done.code}, and no worker waits: {done.text}")
    confirmed = rig.run(RUNNER, "confirm")
    if confirmed.code:
        raise Failed(f"confirm on {rig.name} exits {confirmed.code}: {confirmed.text}")
    time.sleep(_AFTER)
    return {"memory.rest": at_rest / 1e6, "memory.worker": worker / 1e6}


def _processes(rig: Rig) -> Iterator[tuple[str, int]]:
    """Command line and PSS in bytes of each process in the machine's pid namespace."""
    namespace = Path(f"/proc/{rig.machine.must_run()}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        # Others end at any time, and some of the host may be nobody's to look at.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (process / "ns/pid").readlink() != namespace:
                continue
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            told = dict(one.split(":", 1) for one in (process / "smaps_rollup").read_text().splitlines()[1:])
            yield line, int(told["Pss"].split()[0]) * 1024


GROUP = Group(
    "memory",
    40,
    (
        Line("memory.rest", "memory of a lab machine at rest (PSS of all its processes)", "MB", 4),
        Line("memory.worker", "memory of a worker that waits for its confirmation (PSS)", "MB", 15),
    ),
    measure,
    minutes=4,
    quick=30,
)
