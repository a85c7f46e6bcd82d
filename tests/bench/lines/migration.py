"""A trivial migration on one machine, audit on and off, by the runner in Python and by the one in sh, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

from tests.bench.inside import Failed, Inside
from tests.bench.line import Figures, Group, Line, Variant
from tests.bench.session import Bench, watch

_PROCESSES = "counted by the numbers of the machine's pid namespace, the script's own included; a thread counts as one"


def measure(bench: Bench) -> None:
    """Each migration is one over the base: the one before is rolled back, unmeasured."""
    with bench.both() as machines:
        numbers = {series: itertools.count(1) for series in machines}

        variants = [
            Variant(series, partial(_apply, bench, inside, numbers[series], watched=watched))
            for watched in (True, False)
            for series, inside in machines.items()
        ]
        for series, inside in machines.items():
            # So that no variant is the first to read what all need.
            _apply(bench, inside, numbers[series], watched=True)
        bench.rounds(variants, full=21, quick=5)
    watch(bench.lab, watched=True)


def _apply(bench: Bench, inside: Inside, numbers: Iterator[int], *, watched: bool) -> Figures:
    rig = inside.rig
    inside.system_migrate("rollback", "0")
    id = f"20250101-{next(numbers):03}_trivial"
    bundle = inside.put("bundle", rig.migration(id, "echo hello >/etc/hello"))
    watch(rig.lab, watched=watched)
    bench.rest(rig)
    done = inside.system_migrate("apply", "-", stdin=bundle)
    told = {one.id: one.audit for one in rig.status().migrations}[id]
    if (told == "on") is not watched:
        raise Failed(f"audit of {id} on {rig.name} is {told}: {done.output}")
    name = "migration.audit" if watched else "migration.plain"
    return {name: done.seconds, f"{name}.processes": done.processes}


GROUP = Group(
    "migration",
    10,
    (
        Line("migration.audit", "trivial migration, audit on, no confirm", "s", 0.20),
        Line("migration.audit.processes", "processes of it", "processes", 40, note=_PROCESSES),
        Line("migration.plain", "trivial migration without audit", "s", 0.12),
        Line("migration.plain.processes", "processes of it, without audit", "processes", 40, note=_PROCESSES),
    ),
    measure,
    minutes=10,
    quick=35,
)
