"""A machine whose runner can be made to die, or to fail, at any of its system calls; nothing of it is in the runner."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyinfra_overlaymig.lab import layout, namespaces, process
from pyinfra_overlaymig.lab.fleet import quiet
from pyinfra_overlaymig.lab.machine import start
from tests.crash import disk, picture
from tests.crash.modes import Mode
from tests.crash.picture import Picture
from tests.crash.supervise import Order, read_tally
from tests.rig import RUNNER, Rig
from tests.runner_process import is_runner_process

FULL = os.environ.get("OVERLAYMIG_CRASH") == "full"
"""Whether all is done that can be done, for hours; otherwise as much as fits into the tests that always run."""

LIMIT = 120.0
"""Seconds that anything on a machine may take."""


@dataclass(frozen=True)
class Strike:
    """What is to happen, and before which call: the ``at``-th, or the one that ``when`` leads to (see `Order`)."""

    mode: Mode = Mode.KILL
    at: int = 0
    when: tuple[str, ...] = ()


NONE = Strike()


@dataclass(frozen=True)
class Done:
    """What a verb, or a boot, came to: how many calls were counted, and the one that was struck, if one was."""

    code: int
    text: str
    count: int
    where: str


@dataclass(frozen=True)
class Victim(Rig):
    """One machine, to crash and to look at."""

    supervisors: list[Callable[[], bool]] = field(default_factory=list)

    @property
    def place(self) -> layout.Place:
        return layout.place(self.lab, self.name)

    @property
    def data(self) -> Path:
        return namespaces.data(self.place)

    @property
    def init(self) -> int:
        return self.machine.must_run()

    @property
    def _tally(self) -> Path:
        return self.folder / "tally"

    def power_on(self, order: Order | None = None) -> None:
        """Boot, under the eyes of the supervisor if ``order`` says so; without waiting for it."""
        if order:
            _PLUGS[self.place.directory] = order
        self.supervisors.append(start(self.place, namespaces.ground(self.lab.cache, quiet)))

    def power_off(self) -> None:
        process.end(self.place.directory)
        # Who asks for its end takes its process away.
        self.supervisors[:] = [runs for runs in self.supervisors if runs()]

    def is_up(self) -> bool:
        """Whether the boot is over, and what finishes a migration after it."""
        pid = self.machine.pid
        if pid is None:
            return False
        try:
            first = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        # Twice: a list of children that is read while one of them forks or ends can lack another one.
        return first == b"s6-svscan" and not any(
            is_runner_process(line) for _ in range(2) for _, line in picture.processes(pid)
        )

    def start(self, wanted: Picture) -> None:
        """Boot, and wait for the processes of ``wanted``."""
        lines = {line for line in wanted if line.startswith("process ")}
        self.power_on()
        self.watch(lambda: self.is_up() and lines <= set(self.processes()))

    def boot(self) -> None:
        self.power_off()
        self.power_on()
        self.watch(self.is_up)

    def blank(self) -> None:
        """A machine without history."""
        self.folder.mkdir(exist_ok=True)
        self._clear()
        self.boot()
        self.prepare()

    def save(self, folder: Path) -> None:
        """Copy /data of the machine, which does not run, to ``folder``."""
        subprocess.run(["cp", "-a", "--reflink=auto", self.data, folder], check=True)

    def load(self, folder: Path) -> None:
        """End the machine and give it the /data that was saved."""
        self._clear()
        subprocess.run(["cp", "-a", "--reflink=auto", f"{folder}/.", self.data], check=True)

    def _clear(self) -> None:
        self.power_off()
        subprocess.run(["rm", "-rf", "--", *self.data.iterdir()], check=True)

    def watch(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``."""
        until = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < until, f"{self.name}: not over within {LIMIT} s"
            # Looking costs more than the machine's own work does where many machines are looked at.
            time.sleep(0.02)

    def free(self) -> None:
        """Give back what a full disk was filled with."""
        disk.free(self.data)

    def attempt(self, *argv: str, strike: Strike = NONE, stdin: bytes = b"", log: str = "") -> Done:
        """Run a verb of the runner to its end, which may be the one that the strike brings about."""
        said = self.folder / "verb/log"
        said.parent.mkdir(exist_ok=True)
        order = self._order(self.machine.enter(RUNNER, *argv), strike, self.init, str(said), log)
        (self.folder / "stdin").write_bytes(stdin)
        with (self.folder / "stdin").open("rb") as given:
            running = subprocess.Popen(order.command(), stdin=given, stdout=subprocess.PIPE)
        assert running.stdout
        with running.stdout:
            line = running.stdout.readline()
        _LEFT.append(running)
        _LEFT[:] = [one for one in _LEFT if one.poll() is None]
        count, where = read_tally(self._tally)
        assert line, f"{self.name}: the supervisor of {' '.join(argv)} died at call {count}"
        return Done(int(line), said.read_text(errors="replace"), count, where)

    def attempt_boot(self, strike: Strike = NONE, log: str = "") -> Done:
        """Boot; the strike ends the machine (`POWER`), or what assembles or settles its generation (`KILL`)."""
        self.power_off()
        self._tally.unlink(missing_ok=True)
        self.power_on(self._order([], strike, 0, "", log))
        self.watch(lambda: self._is_down() or self.is_up())
        count, where = read_tally(self._tally)
        return Done(0, self.place.console.read_text(errors="replace"), count, where)

    def _is_down(self) -> bool:
        """Whether a strike has ended the machine altogether."""
        return bool(read_tally(self._tally)[1]) and self.machine.pid is None

    def _order(self, argv: list[str], strike: Strike, init: int, output: str, log: str) -> Order:
        return Order(
            argv, str(self.place.directory), str(self._tally), strike.mode.value, strike.at, list(strike.when),
            machine=init, output=output, log=log,
        )  # fmt: skip

    def picture(self) -> Picture:
        """The whole machine: the running root, state, mounts, processes and services."""
        pid = self.init
        root = Path(f"/proc/{pid}/root")
        # Who the machine is differs from one to the next.
        seed = self.place.directory / "seed"
        identity = frozenset(str(path.relative_to(seed)) for path in (seed / "etc").rglob("*"))
        system = self.data / "system"
        over = [*(system / "layers").iterdir(), *(system / "upper").glob("[0-9]*/upper")]
        lines = set(picture.tree(root, "root", identity, over))
        # What services had to say, and the logs that s6-log was killed over, are as the day went.
        logs = frozenset(str(path.relative_to(self.data / "state")) for path in self.data.glob("state/var/log/*/*"))
        state = picture.tree(self.data / "state", "state", logs)
        lines |= {line for line in state if not re.match(r"state /'var/log/[a-z]+/(@|previous|state|current)", line)}
        lines |= set(picture.counted(picture.mounts(pid, self.place.directory)))
        return frozenset(lines | set(self.processes()))

    def processes(self) -> Iterator[str]:
        """Each command that runs, and how often; that of each service is among them."""
        return picture.counted(f"process {line}" for _, line in picture.processes(self.init))

    def picture_of(self, *expected: Picture) -> Picture:
        """The picture once it is one of ``expected``, or what it is after some seconds: services need their time."""
        until = time.monotonic() + 5
        while (now := self.picture()) not in expected and time.monotonic() < until:
            time.sleep(0.1)
        return now

    def pids(self, *commands: str) -> list[int]:
        """The processes that run these commands."""
        return sorted(pid for pid, line in picture.processes(self.init) if line.startswith(commands))


_LEFT: list[subprocess.Popen[bytes]] = []
"""Supervisors that stay for what a verb left running. Here, since a victim may go earlier than its machine."""

_PLUGS: dict[Path, Order] = {}
"""How the next boot of a machine, by its directory, is to be supervised."""
_program = namespaces.program


def _program_under(place: layout.Place, base: Path) -> list[str | Path]:
    argv = _program(place, base)
    order = _PLUGS.pop(place.directory, None)
    if not order:
        return argv
    return list(Order(**{**vars(order), "argv": [str(word) for word in argv]}).command())


@contextmanager
def machines_under_supervision() -> Iterator[None]:
    """While this lasts, machines of a lab can be booted under the supervisor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(namespaces, "program", _program_under)
        yield
