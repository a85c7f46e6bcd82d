"""`status` of a machine with 3 layers and of one with 400, by both runners: timed inside the machine, and its bytes."""

from __future__ import annotations

from functools import partial

from tests.bench.inside import Inside
from tests.bench.line import SH, Figures, Group, Line, Variant
from tests.bench.session import Bench

_FEW, _MANY = 3, 400
_AGAIN = {"now": 5, SH: 1}
"""Calls in a row of which the mean is a figure: one alone is near what a clock tick or a cold cache makes of it."""
_SETTLED = 3
"""Seconds after which the runner trusts what it has rendered: a change in the same tick would not be seen. A machine's
records were not all made just before its last change.
"""

# Migrations like the first, each with a record and a layer of its own, and as many generations; then a rollback goes to
# the topmost, so that a machine runs whose root has all these layers.
_MAKE = """\
import os, shutil, subprocess, sys, time
count, settled = map(int, sys.argv[1:])
os.chdir("/data/system")
ids = [f"20250101-{number:03}_trivial" for number in range(1, count + 1)]
head = "".join(line for line in open("generations/1") if not line.startswith("layer "))
for number, id in enumerate(ids[1:], 2):
    shutil.copytree(f"migrations/{ids[0]}", f"migrations/{id}")
    for name in ("record", "applied"):
        lines = open(f"migrations/{ids[0]}/{name}").read().replace("generation 1\\n", f"generation {number}\\n")
        open(f"migrations/{id}/{name}", "w").write(lines)
    os.makedirs(f"layers/{id}/etc")
    open(f"layers/{id}/etc/hello-{number}", "w").write(f"{number}\\n")
    open(f"generations/{number}", "w").write(head + "".join(f"layer {one}\\n" for one in ids[:number]))
time.sleep(settled)
subprocess.run(["/data/system/runner/system-migrate", "rollback", str(count)], check=True)
time.sleep(settled)
"""


def measure(bench: Bench) -> None:
    """First few layers, then many: the same machines cannot have both."""
    for count, name, full, quick in ((_FEW, "status.few", 21, 5), (_MANY, "status.many", 15, 3)):
        with bench.both() as machines:
            bench.say(f"  making {count} layers on each machine")
            for inside in machines.values():
                _make(inside, count)
            variants = [
                Variant(series, partial(_ask, inside, name, _AGAIN[series])) for series, inside in machines.items()
            ]
            bench.rounds(variants, full=full, quick=quick)


def _make(inside: Inside, count: int) -> None:
    done = inside.rig.apply("20250101-001_trivial", "echo hello >/etc/hello")
    assert done.code == 0, done.text
    done = inside.rig.run("/usr/bin/python3", "-I", "-S", "-B", "-c", _MAKE, str(count), str(_SETTLED))
    assert done.code == 0, done.text
    assert len(inside.rig.status().stack) == count


def _ask(inside: Inside, name: str, again: int) -> Figures:
    asked = [inside.system_migrate("status") for _ in range(again)]
    return {name: sum(one.seconds for one in asked) / again, f"{name}.bytes": asked[0].size}


GROUP = Group(
    "status",
    30,
    (
        Line("status.few", "status of a machine with 3 layers", "s", 0.040),
        Line("status.few.bytes", "bytes of status with 3 layers", "bytes", 100_000),
        Line("status.many", "status of a machine with 400 layers", "s", 0.060),
        Line("status.many.bytes", "bytes of status with 400 layers", "bytes", 100_000),
    ),
    measure,
    minutes=8,
    quick=40,
)
