"""Exit codes of `system-migrate`, and what each means for the machine."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DONE: Final = 0
REFUSED: Final = 3
INVALID: Final = 4
REVERTED: Final = 9
BETWEEN: Final = 20
USAGE: Final = 100
UNABLE: Final = 111

INTERRUPTED: Final = "interrupted"
UNCONFIRMED: Final = "unconfirmed"
UNHEALTHY: Final = "unhealthy"
"""What the record of a failed migration has in the place of its script's exit, where that says nothing: it was
interrupted, no new connection came in time, its services or verify.sh failed."""

MEANINGS: Final = {
    DONE: "done, or already so",
    REFUSED: "refused; the machine is untouched",
    INVALID: "invalid bundle, plan or arguments; the machine is untouched",
    REVERTED: "failed and reverted; the machine is as before",
    BETWEEN: "failed between two generations; `system-migrate recover` is needed",
    USAGE: "wrong usage of system-migrate; the machine is untouched",
    UNABLE: "a system call failed before any change",
}


def meaning(status: int) -> str:
    """What the exit ``status`` means, in words fit for a message."""
    known = MEANINGS.get(status)
    return known or f"exit {status} is none of system-migrate's: was it killed, or not started?"
