"""Publishing 1,000 changed files of state: a migration's own, on real machines, by both runners.

Measured from outside by inotify, while the migration runs: from `publishing`, the mark that comes just before, to
the line in the log that says that the machine is being switched, which is said just after. Services stand still
meanwhile. So it is the phase of a real migration, not a function called by itself, and the same for both runners.
"""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

from pyinfra_overlaymig.runner import linux
from tests.bench.inside import Failed, Inside
from tests.bench.line import Figures, Group, Line, Variant
from tests.bench.session import Bench

_FILES = 1000
_STATE = "/srv/app"
_SAYS = b"switching to generation"
_PATIENCE = 120.0
_CREATE, _MODIFY, _MOVED_TO = 0x100, 0x2, 0x80


def measure(bench: Bench) -> None:
    """Each round's migration writes all of the files again."""
    with bench.both() as machines:
        numbers = {series: itertools.count(1) for series in machines}
        for series, inside in machines.items():
            # The first one brings the state path itself.
            _apply(inside, next(numbers[series]))
        variants = [
            Variant(series, partial(_publish, bench, inside, numbers[series])) for series, inside in machines.items()
        ]
        bench.rounds(variants, full=15, quick=4)


def _publish(bench: Bench, inside: Inside, numbers: Iterator[int]) -> Figures:
    bench.rest(inside.rig)
    number = next(numbers)
    with _Watch(inside.rig.machine.data / "system/staging" / _id(number)) as watch:
        _apply(inside, number)
        return {"state.publish": watch.seconds()}


def _apply(inside: Inside, number: int) -> None:
    script = (
        f"mkdir -p {_STATE}; cd {_STATE}; n=0\n"
        f"while [ $n -lt {_FILES} ]; do echo {number} >$n; n=$((n + 1)); done; echo {number} >/etc/app"
    )
    bundle = inside.put("bundle", inside.rig.migration(_id(number), script, state=[_STATE]))
    inside.system_migrate("apply", "-", stdin=bundle)
    got = inside.rig.sh(f"cat /data/state{_STATE}/* | sort | uniq -c").split()
    if got != [str(_FILES), str(number)]:
        raise Failed(f"the state of {inside.rig.name} is not what was to be published: {got[:6]}")


def _id(number: int) -> str:
    return f"20250101-{number:03}_state"


class _Watch:
    """Notes when the stage gets its mark, and when its log says what comes after."""

    def __init__(self, stage: Path) -> None:
        self._stage = stage
        self._begun = self._ended = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._descriptor = linux.inotify(str(self._stage.parent), _CREATE | _MOVED_TO)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_PATIENCE)
        os.close(self._descriptor)

    def seconds(self) -> float:
        """How long it took."""
        self._thread.join(1)
        if not self._ended:
            raise Failed(f"nothing of {self._stage.name} was seen to be published")
        return self._ended - self._begun

    def _look(self) -> None:
        """Until all is known: first for the stage, then in it."""
        inner = -1
        while not self._ended and not self._over.is_set():
            select.select([one for one in (self._descriptor, inner) if one >= 0], [], [], 0.2)
            moment = time.monotonic()
            if inner < 0 and self._stage.is_dir():
                inner = linux.inotify(str(self._stage), _CREATE | _MOVED_TO | _MODIFY)
            if inner >= 0:
                self._note(moment)
                linux.drain(inner)
            linux.drain(self._descriptor)
        if inner >= 0:
            os.close(inner)

    def _note(self, moment: float) -> None:
        if not self._begun:
            self._begun = moment if (self._stage / "publishing").exists() else 0.0
        elif _SAYS in (self._stage / "log").read_bytes():
            self._ended = moment


GROUP = Group(
    "state",
    35,
    (Line("state.publish", f"publishing {_FILES:,} changed files of state", "s", 0.030),),
    measure,
    minutes=6,
    quick=25,
)
