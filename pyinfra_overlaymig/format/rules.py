"""What names, paths and words in a plan may be; the operator's side says the same with a file and a line beside it."""

from __future__ import annotations

import posixpath
import re

from pyinfra_overlaymig.format.paths import FOREIGN, INITIALIZED, OF_ALL, OF_PACKAGES, OF_PROGRAMS, STATE, is_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

SERVICE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
DAY: Final = 24 * 60 * 60
"""The most seconds that any limit may be."""
DRIFT: Final = ("refuse", "adopt", "discard")
AUDIT: Final = ("wanted", "required")
RESTART: Final = ("always", "changed", "never")
_MARKS: Final = INITIALIZED[len(STATE) :]
SETTINGS: Final = (
    *("run", "prepare", "finish", "user", "check", "down_signal"),
    *("notification_fd", "timeout_kill", "max_death_tally", "environment", "needs"),
)
"""Keys of a service that shape it."""


_UNSEEN = "what layers bring there could not be seen"


def valid_service(name: str) -> bool:
    """Whether ``name`` may be that of a service."""
    return bool(SERVICE_NAME.fullmatch(name))


def state_path(text: str) -> str:
    """The state path that is meant by ``text``: without blanks of any kind in its slashes."""
    return posixpath.normpath("/" + text.lstrip("/"))


def state_trouble(text: str) -> tuple[str, str] | None:
    """Why ``text`` can be no state path, and what to do; None where it can."""
    if not text.startswith("/") or ".." in text.split("/") or "\0" in text:
        return f"state path {text!r} is not absolute or has `..` in it", "write it like /var/lib/postgresql"
    path = state_path(text)
    for top in FOREIGN:
        if path == "/" or is_below(path, top):
            return (
                f"state path {text!r} cannot be state: {top} and / are not a layer's",
                "name the directory that the service keeps its data in",
            )
    if is_below(path, _MARKS):
        return f"state path {text!r} is where the marks of services are", "name another directory"
    if path in OF_ALL:
        return (
            f"state path {text!r} belongs to the system",
            f"{_UNSEEN}; name a narrower directory, like {narrower(path)}",
        )
    for tops, why in (
        (OF_PACKAGES, "packages and files would disagree after a rollback"),
        (OF_PROGRAMS, _UNSEEN),
    ):
        for top in tops:
            if is_below(path, top) or is_below(top, path):
                return (
                    f"state path {text!r} touches {top}, which belongs to the system",
                    f"{why}; name a narrower directory, like {narrower(path)}",
                )
    return None


def shared_trouble(path: str, what: str) -> tuple[str, str]:
    """What to say of a state path of `SHARED` where ``what`` has files."""
    return (
        f"state path {path!r} belongs to the system: {what} has files there",
        f"{_UNSEEN}; name a narrower directory, like {narrower(path)}",
    )


def narrower(path: str) -> str:
    """Where a program would keep what is its own, near ``path``."""
    return f"{path}/postgresql" if path in ("/etc", "/opt", "/var/lib") else "/var/lib/postgresql"


def overlap(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two of ``paths`` of which one lies in the other, the later first; None where there are none."""
    before: list[str] = []
    for path in paths:
        for other in before:
            if is_below(path, other) or is_below(other, path):
                return path, other
        before.append(path)
    return None


def inside(path: str) -> bool:
    """Whether a relative path stays where it belongs: no empty parts, no `.` and no `..`."""
    return not {"", ".", ".."}.intersection(path.split("/")) and "\0" not in path
