"""One run of the bench: its volume, labs and machines, the rounds, and what was measured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab import audit
from pyinfra_overlaymig.lab.fleet import quiet
from tests.bench import stats
from tests.bench.inside import Failed, Inside
from tests.bench.line import NOW, SH, Found, Line, Variant
from tests.rig import RUNNER, Rig
from tests.runner_process import SETTLING

OLD = Path(__file__).parent.parent / "fixtures/runner-sh.tar.gz"
"""The runner in sh, as machine_prepared uploaded it last."""
_MACHINES = 3
_RULES_WITHIN = 20.0
"""Seconds that the rules of an audit session may take to be deleted before the next measurement begins anyway."""
_LONG = 600.0
_LEAST = 3
"""Rounds from which on a long measurement may end early."""


class Bench:
    """What a group's ``measure`` gets."""

    def __init__(
        self, directory: Path, results: Path, *, quick: bool, rounds: int | None, say: Callable[[str], None]
    ) -> None:
        self.directory = directory
        self._results = results
        self.quick = quick
        self.say = say
        self._rounds = rounds
        self._lab: labs.Lab | None = None
        self._found: dict[str, Found] = {}
        self._until = 0.0

    def begin(self, lines: Sequence[Line], seconds: float) -> dict[str, Found]:
        """From here on these lines are measured: what is found of each, by name."""
        self._found = {line.name: Found(line) for line in lines}
        # Its last rounds are to end by themselves.
        self._until = time.monotonic() + seconds * 0.8
        return self._found

    def note(self, line: str, series: str, figure: float) -> None:
        """One figure of one line."""
        if line not in self._found:
            raise Failed(f"there is no line {line} in this group")
        self._found[line].series.setdefault(series, []).append(figure)

    def keep(self, name: str, text: str) -> None:
        """Beside the results, a file for whoever wants to know why."""
        (self._results / name).write_text(text)

    def rounds(self, variants: Sequence[Variant], *, full: int, quick: int) -> None:
        """Measure all variants once in each round; a round counts when it is whole, so that pairs are pairs."""
        count = self._rounds or (quick if self.quick else full)
        for number in range(count):
            if number >= _LEAST and time.monotonic() > self._until:
                self.say(f"  {number} of {count} rounds: the time is up")
                return
            told = [(variant.series, variant.measure()) for variant in stats.order(variants, number)]
            for series, figures in told:
                for line, figure in figures.items():
                    name, _, other = line.partition("/")
                    self.note(name, other or series, figure)
            said = sorted(f"{line} {series} {one:.3g}" for series, figures in told for line, one in figures.items())
            self.say(f"  round {number + 1} of {count}: {', '.join(said)}")

    @property
    def lab(self) -> labs.Lab:
        """The lab that groups share: three machines."""
        if self._lab is None:
            self._lab = _at(self.directory / "lab")
            labs.up(self._lab, _MACHINES)
        return self._lab

    def leave_lab(self) -> None:
        """It goes; who wants it again gets a new one."""
        if self._lab is not None:
            labs.down(self._lab)
            self._lab = None

    @contextmanager
    def own_lab(self, machines: int, cache: Path | None = None) -> Iterator[labs.Lab]:
        """A lab of the group's own, the only one meanwhile."""
        self.leave_lab()
        made = _at(self.directory / "own-lab", cache)
        try:
            if machines:
                labs.up(made, machines)
            yield made
        finally:
            labs.down(made)

    def rig(self, name: str = "lab-1", lab: labs.Lab | None = None) -> Rig:
        """A machine without history, with the runner of this checkout."""
        rig = Rig(lab or self.lab, name, self.directory / "migrations" / name)
        rig.reset()
        settled(rig)
        return rig

    def old(self, name: str = "lab-2") -> Rig:
        """A machine without history, with the runner in sh."""
        rig = Rig(self.lab, name, self.directory / "migrations" / name)
        rig.reset()
        rig.sh("rm -rf /data/system/runner /data/system/migrations/metadata.json /data/system/base-services")
        install = 'd=$(mktemp -d); tar -xz -C "$d"; sh "$d/system-migrate" init; rm -rf "$d"'
        rig.sh(install, stdin=OLD.read_bytes())
        labs.restart(rig.lab, rig.name)
        settled(rig)
        rig.sh(f"head -n 3 $(readlink -f {RUNNER}) | grep -q dispatcher")
        return rig

    @contextmanager
    def both(self) -> Iterator[dict[str, Inside]]:
        """Two such machines side by side, by series."""
        with Inside(self.rig()) as new, Inside(self.old()) as old:
            yield {NOW: new, SH: old}

    def rest(self, rig: Rig) -> None:
        """What was done before is over: rules of audit are deleted, writes are on the disk."""
        until = time.monotonic() + _RULES_WITHIN
        while any((rig.lab.audit / "sessions").glob("*")) and time.monotonic() < until:
            time.sleep(0.05)
        subprocess.run(["sync", "-f", self.directory], check=True)


def watch(lab: labs.Lab, *, watched: bool) -> None:
    """With audit or without: no keeper, and none of the kernel's audit where nobody else has it on."""
    if watched:
        audit.start(lab, quiet)
    else:
        audit.leave(lab)


def settled(rig: Rig) -> None:
    """Wait for the end of what a boot does in the background."""
    script = f"for i in $(seq 600); do pgrep -f '{SETTLING}' >/dev/null || exit 0; sleep 0.1; done; exit 1"
    rig.sh(script, timeout=_LONG)


def _at(directory: Path, cache: Path | None = None) -> labs.Lab:
    # What runs beside the bench, pyinfra for one, looks there.
    os.environ["OVERLAYMIG_LAB_DIR"] = str(directory)
    lab = labs.Lab.at(directory, cache)
    with suppress(FileNotFoundError):
        labs.down(lab)
    return lab
