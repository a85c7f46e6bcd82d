"""The bench's hand in a machine: one process there that runs, times and counts what it is asked to."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rig import RUNNER, Rig

_AGENT = Path(__file__).with_name("agent.py")


@dataclass(frozen=True)
class Timed:
    """What a command on the machine took. ``processes``: all that were started meanwhile, itself included."""

    seconds: float
    processes: int
    code: int
    size: int
    output: str


class Failed(Exception):
    """A command that is measured has to succeed."""


class Inside:
    """Commands run in the machine, one after the other; ends with the machine, or with the context."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        argv = rig.machine.enter("/usr/bin/python3", "-I", "-S", "-B", "-c", _AGENT.read_text())
        # Whoever interrupts the bench at a terminal interrupts it alone: it tells what it has, and closes this.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """It ends; the machine goes on."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def run(self, *argv: str, stdin: str = "", code: int = 0) -> Timed:
        """Run and time one command; ``stdin`` names a file of the machine."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Failed("the agent has no pipes")
        self._process.stdin.write(json.dumps({"argv": argv, "stdin": stdin}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed(f"{self.rig.name} ended while it ran {' '.join(argv)}")
        done = Timed(**json.loads(answer))
        if done.code != code:
            raise Failed(f"{' '.join(argv)} on {self.rig.name} exits {done.code}: {done.output[-800:]}")
        return done

    def system_migrate(self, *words: str, stdin: str = "") -> Timed:
        """Run and time a verb of the runner that the machine has."""
        return self.run(RUNNER, *words, stdin=stdin)

    def put(self, name: str, content: bytes) -> str:
        """Put a file into the machine's /run; where it is there."""
        path = f"/run/bench-{name}"
        self.rig.sh(f"cat >{path}", stdin=content)
        return path
