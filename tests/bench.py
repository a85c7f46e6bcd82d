"""What things cost on real machines. `make bench` runs it; it asserts nothing, as other work on the host shows in it.

usage: python -m tests.bench [PAIRS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab import audit
from pyinfra_overlaymig.lab.fleet import quiet
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from tests.rig import RUNNER, Rig
from tests.volume import volume

POSTGRESQL = Path(__file__).parent.parent / "deploys/migrations/20240206-001_add_postgresql"


def main(pairs: int) -> None:
    """Print one line for each measurement."""
    with volume() as directory:
        os.environ["OVERLAYMIG_LAB_DIR"] = str(directory / "lab")
        lab = labs.Lab.default()
        labs.up(lab, 1)
        try:
            rig = Rig(lab, "lab-1", directory)
            _line("rollback of a layer of 300 MB, against an empty one", _rollbacks(rig, pairs))
            _line("apt-get install postgresql, with capture", _pairs(rig, pairs))
        finally:
            labs.down(lab)


def _line(what: str, pairs: list[tuple[float, float]]) -> None:
    ratio = statistics.median(new / old for old, new in pairs)
    old, new = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{what}: {new:.1f} s for {old:.1f} s, x {ratio:.3f} (medians of {len(pairs)} pairs)")  # noqa: T201


def _pairs(rig: Rig, count: int) -> list[tuple[float, float]]:
    """Without and with capture, one after the other; which is first changes from pair to pair."""
    _apply(rig, watched=True)  # so that neither is the first to read the host's disk
    found = []
    for number in range(count):
        times = {watched: _apply(rig, watched=watched) for watched in (number % 2 == 1, number % 2 == 0)}
        found.append((times[False], times[True]))
    return found


def _rollbacks(rig: Rig, count: int) -> list[tuple[float, float]]:
    """Of an empty layer and of a large one, each forward again before the next."""
    rig.reset()
    large = "dd if=/dev/urandom of=/opt/large bs=1M count=300"
    for name, script in (("1_below", ":"), ("2_empty", ":"), ("3_large", large)):
        assert rig.apply(f"20250101-00{name}", script).code == 0
        if name != "1_below":
            rig.run(RUNNER, "rollback", "1")
    times: dict[str, list[float]] = {"2": [], "4": []}
    for number in range(2 * count):
        generation = "24"[(number + number // 2) % 2]
        assert rig.run(RUNNER, "rollback", generation).code == 0
        begun = time.monotonic()
        assert rig.run(RUNNER, "rollback", "1").code == 0
        times[generation].append(time.monotonic() - begun)
    return list(zip(times["2"], times["4"], strict=True))


def _apply(rig: Rig, *, watched: bool) -> float:
    rig.reset()
    if watched:
        audit.start(rig.lab, quiet)
    else:
        audit.leave(rig.lab)
    begun = time.monotonic()
    result = rig.run(RUNNER, "apply", "-", stdin=pack(load(POSTGRESQL)), timeout=600)
    taken = time.monotonic() - begun
    assert result.code == 0, result.text
    assert (rig.status().migrations[0].audit == "on") is watched
    return taken


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
