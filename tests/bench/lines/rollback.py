"""A rollback, live, from a layer of 1 MB and from one of 2 GB, timed inside the machine.

The runner in sh beside it has the small one alone.
"""

from __future__ import annotations

from functools import partial

from tests.bench.inside import Inside
from tests.bench.line import NOW, Figures, Group, Line, Variant
from tests.bench.session import Bench

_BELOW, _SMALL, _LARGE = "20250101-001_below", "20250102-001_small", "20250103-001_large"
_SIZES = {_SMALL: 1, _LARGE: 2048}
"""In MB."""


def measure(bench: Bench) -> None:
    """Forward to the layer, unmeasured, and back from it, measured."""
    with bench.both() as machines:
        for series, inside in machines.items():
            bench.say(f"  making layers on {inside.rig.name}")
            _make_layers(inside, (_SMALL, _LARGE) if series == NOW else (_SMALL,))
        variants = [
            Variant(series, partial(_back, bench, inside, id, new=series == NOW))
            for id in (_SMALL, _LARGE)
            for series, inside in machines.items()
            if series == NOW or id == _SMALL
        ]
        bench.rounds(variants, full=31, quick=7)


def _make_layers(inside: Inside, ids: tuple[str, ...]) -> None:
    """All over the same layer. What is in them was written to the disk: it is random, and no hole."""
    rig = inside.rig
    assert rig.apply(_BELOW, "echo below >/etc/below").code == 0
    for id in ids:
        script = f"dd if=/dev/urandom of=/opt/large bs=1M count={_SIZES[id]} status=none"
        done = rig.apply(id, script)
        assert done.code == 0, done.text
        inside.system_migrate("rollback", _BELOW)


def _back(bench: Bench, inside: Inside, id: str, *, new: bool) -> Figures:
    inside.system_migrate("rollback", id)
    bench.rest(inside.rig)
    done = inside.system_migrate("rollback", _BELOW)
    line, size = ("rollback.large", "2 GB") if id == _LARGE else ("rollback.small", "1 MB")
    if new:
        return {line: done.seconds, f"rollback.same/{size}": done.seconds}
    return {line: done.seconds}


GROUP = Group(
    "rollback",
    20,
    (
        Line("rollback.small", "rollback, live, of a layer of 1 MB", "s", 0.10),
        Line("rollback.large", "rollback, live, of a layer of 2 GB", "s", 0.10),
        Line(
            "rollback.same",
            "the one against the other",
            "s",
            1.10,
            of="2 GB",
            over="1 MB",
            note="the same: within a tenth",
        ),
    ),
    measure,
    minutes=8,
    quick=45,
)
