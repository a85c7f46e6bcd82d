"""Every error there is: what is wrong, what to do about it, and the exit code it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class OverlaymigError(Exception):
    """Something an operator can mend; ``hint`` says how."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidMigration(OverlaymigError):
    """A migration, a folder of them or a choice among them that cannot be; ``file`` and ``line`` say where."""

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, hint: str, file: Path | None = None, line: int | None = None) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(f"{where}{message}", hint=hint)
        self.file = file
        self.line = line


class InvalidStatus(OverlaymigError):
    """A machine's status that this version cannot read."""

    exit_code: ClassVar[int] = 1


RUNNER_EXITS = {
    0: "done, or already so",
    3: "refused; the machine is untouched",
    4: "invalid input; the machine is untouched",
    9: "failed and reverted; the machine is as before",
    20: "failed between two generations; run: system-migrate recover",
    100: "wrong usage",
    111: "a system call failed before any change",
}
"""What the exit codes of `system-migrate` mean for the machine."""


def runner_exit_meaning(status: int) -> str:
    """What the runner's exit ``status`` means, in words fit for a message."""
    return RUNNER_EXITS.get(status, f"ended with {status}, which means nothing to this version")
