"""Every error this project raises, each with a remedy; it must import nothing of the project."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final


class OverlaymigError(Exception):
    """Something is wrong (``message``) and can be put right (``hint``).

    ``exit_code`` is the exit status of a program that ends because of it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Refused(OverlaymigError):
    """The machine said no before it touched anything."""

    exit_code = 3


class InvalidMigration(OverlaymigError):
    """A migration folder cannot be used; ``file`` and ``line`` (counted from 1) say where."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str, file: Path | None = None, line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        where = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


def unreadable(file: Path, error: OSError) -> InvalidMigration:
    """A file of a migration that cannot be read, in words."""
    hint = f"let this user read it (chmod u+r), or take it out of the migration: {file.name}"
    if not isinstance(error, PermissionError):
        hint = "look at it, and at the disk that it is on; then run this again"
    return InvalidMigration(f"cannot be read: {in_words(error)}", hint=hint, file=file)


def in_words(error: OSError) -> str:
    """What the system says, without the number that it calls it by."""
    return (error.strerror or f"{error}").lower()


class InvalidOrder(InvalidMigration):
    """Migrations that are sound one by one cannot be applied together."""


class InvalidStatus(OverlaymigError):
    """What a machine answers is not what this version understands."""

    exit_code = 4


class MigrationFailed(OverlaymigError):
    """A migration failed and was reverted; the machine is as before."""

    exit_code = 9


class RecoveryNeeded(OverlaymigError):
    """The machine stands between two generations."""

    exit_code = 20


class InvalidUsage(OverlaymigError):
    """The command line makes no sense."""

    exit_code = 100


class SystemCallFailed(OverlaymigError):
    """The machine could not do what was asked, and changed nothing."""

    exit_code = 111


_BY_EXIT: Final[dict[int, type[OverlaymigError]]] = {
    error.exit_code: error
    for error in (
        Refused,
        InvalidMigration,
        MigrationFailed,
        RecoveryNeeded,
        InvalidUsage,
        SystemCallFailed,
    )
}


def from_runner_exit(status: int, message: str, *, hint: str) -> OverlaymigError:
    """The error that stands for the runner's exit ``status`` (which is not 0)."""
    return _BY_EXIT.get(status, OverlaymigError)(message, hint=hint)
