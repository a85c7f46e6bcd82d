"""What counts as a ready service, for whoever waits for one: the runner, `s6_service`, and what is rendered for s6.

A service tells that it is ready by a newline on the descriptor in the file TELLS; one with a `check` is asked for the
first time after FIRST_CHECK, so that what dies at once is not taken for what answers in its place. One that tells
nothing has the file BEGINS: it is told for it when its own program begins, after all that it waits for, and has to live
on for a while.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TELLS: Final = "notification-fd"
BEGINS: Final = "data/begins"
NEEDS: Final = "data/needs"
REASON: Final = "reason"
"""Why it stays down, where its start failed."""

FIRST_CHECK: Final = 300
"""Milliseconds from its start until a service's `check` is asked for the first time."""
NEXT_CHECK: Final = 200
"""Milliseconds from one that said no until the next."""
SETTLES: Final = 0
"""Seconds that a service has to live on which told that it is ready."""
SETTLES_SILENT: Final = 3
"""The same where nothing is told but that it began."""
DEATHS: Final = 3
"""As many while it is waited for, and it will not get ready."""


def settles(*, tells: bool, begins: bool) -> int:
    """Seconds that a service has to live, by which of the two files it has."""
    return SETTLES if tells and not begins else SETTLES_SILENT


def is_ready(*, up: bool, told: bool, tells: bool) -> bool:
    """Whether it is ready at this moment: one that announces nothing at all is when it is up."""
    return up and (told or not tells)
