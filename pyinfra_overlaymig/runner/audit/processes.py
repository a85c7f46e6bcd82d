"""The programs that a session's records tell of, and who started them."""

from __future__ import annotations

import re

_GONE = re.compile(r"(?:\\040| )\(deleted\)$")
_SH = "/stage/init.sh "
"""What process 1 of a stage was, while the runner was written in sh."""


class Process:
    """A program that ran; a pid is a new one with each program that it becomes. ``parent`` is a number, 0 for none."""

    __slots__ = ("arguments", "number", "parent", "parent_pid", "pid", "program")

    def __init__(self, number: int, parent: int, pids: tuple[str, str], program: str, arguments: str) -> None:
        self.number = number
        self.parent = parent
        self.pid, self.parent_pid = pids
        self.program = program
        self.arguments = arguments


class Processes:
    """Those that the records tell of, in their order. ``reaper``: the pid that takes over whose parent has ended."""

    def __init__(self, runner: str) -> None:
        self.all: list[Process] = []
        self.reaper = ""
        self._runner = runner
        self._now: dict[str, Process] = {}
        self._waiting: dict[str, list[Process]] = {}

    def find(self, pid: str, ppid: str, program: str) -> Process:
        """The process that ``pid`` is now. A pid may have been given out again: then it has another parent."""
        found = self._now.get(pid)
        if (
            found is not None
            and (found.program == program or _same(found.program, program))
            and (ppid in (found.parent_pid, self.reaper) or ppid not in self._now)
        ):
            return found
        words = self._runner if pid == self.reaper and program.rpartition("/")[2].startswith("python") else ""
        return self._begin(pid, ppid, self._now.get(ppid), program, words)

    def execute(self, pid: str, ppid: str, program: str, words: str) -> None:
        """``pid`` becomes another program."""
        if _SH in words:
            self.reaper = pid
        # What it was before is not its parent: a shell that has forked to run it.
        before = self._now.get(pid)
        if before is None or ppid not in (before.parent_pid, self.reaper):
            before = self._now.get(ppid)
        self._begin(pid, ppid, before, program, words)

    def last(self, script: str) -> str:
        """The arguments of the last program that ``script`` started itself, or one of its subshells; empty for none."""
        own: set[int] = set()
        words, last = "", ""
        for one in self.all:
            if not own and script in one.arguments.split(" "):
                own, words = {one.number}, one.arguments
            elif one.parent in own and one.arguments == words:
                own.add(one.number)
            elif one.parent in own:
                last = one.arguments or last
        return last

    def _begin(self, pid: str, ppid: str, above: Process | None, program: str, words: str) -> Process:
        if not words and above is not None and above.program == program:
            words = above.arguments
        made = Process(len(self.all) + 1, above.number if above else 0, (pid, ppid), program, words)
        self.all.append(made)
        # The record of a vfork comes when the child has become another program, which is after the first of the child.
        if above is None:
            self._waiting.setdefault(ppid, []).append(made)
        for child in self._waiting.pop(pid, ()):
            if child is not made:
                child.parent = made.number
        self._now[pid] = made
        return made


def _same(one: str, other: str) -> bool:
    """A program is called otherwise once its process is in another root: as the end, or with more before it."""
    one, other = _GONE.sub("", one), _GONE.sub("", other)
    return one == other or _ends(one, other) or _ends(other, one)


def _ends(long: str, short: str) -> bool:
    return len(long) > len(short) and long.endswith(short)
