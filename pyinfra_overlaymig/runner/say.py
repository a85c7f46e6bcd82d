"""How the runner speaks, and how a verb leaves; nobody listening any more is no reason to stop."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR = 2
_LONGEST = 500
"""Characters of what is quoted from outside: a name, a line of a bundle."""


class Leave(Exception):
    """Leaves the verb with exit ``code``, having said ``what`` is wrong and a ``hint`` what to do."""

    def __init__(self, code: int, what: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint

    def tell(self) -> None:
        """Says it on standard error."""
        if self.what:
            warn(self.what)
        if self.hint:
            write(2, f"  hint: {self.hint}\n")


def refused(what: str, hint: str) -> Leave:
    """No, and the machine is untouched."""
    return Leave(3, what, hint)


def invalid(what: str, hint: str) -> Leave:
    """What was given makes no sense; the machine is untouched."""
    return Leave(4, what, hint)


def usage(what: str, hint: str) -> Leave:
    """The command line makes no sense."""
    return Leave(100, what, hint)


def unable(what: str, hint: str) -> Leave:
    """The machine cannot do what was asked, and nothing has changed."""
    return Leave(111, what, hint)


def say(text: str) -> None:
    """One line of progress, to standard output."""
    write(1, f"==> {harmless(text)}\n")


def warn(text: str) -> None:
    """One line of trouble, to standard error."""
    write(2, f"system-migrate: {text}\n")


def harmless(text: str) -> str:
    """``text`` with its lines and tabs; what else is no letter or sign stands as the octal numbers of its bytes."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _numbers(one) for one in text)


def _numbers(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def write(descriptor: int, text: str) -> None:
    """``text`` to a descriptor, without a buffer: it is there when the next line of whatever runs is.

    On standard error it is for people: what a terminal would obey, in a name that somebody else chose, is escaped.
    """
    if descriptor == _ERROR:
        text = harmless(text)
    write_bytes(descriptor, text.encode("utf-8", "surrogateescape"))


def write_bytes(descriptor: int, data: bytes) -> None:
    """As `write`, of bytes as they are."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError:
        # A log on a full disk: what is said is less than what is done.
        return


def answer(text: str) -> None:
    """What was asked for, to standard output: part of it on a full disk would be taken for all; leaves with 111."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            try:
                data = data[os.write(1, data) :]
            except BlockingIOError:
                # A pipe that somebody set so, and is full.
                import select

                select.select([], [1], [])
    except OSError as error:
        if isinstance(error, (BrokenPipeError, ConnectionResetError)) or error.errno == errno.EIO:
            # Whoever read it has seen enough; a terminal that was hung up.
            return
        raise unable(f"the answer could not be written: {error.strerror}", "send it to where there is room") from None


def short(text: str) -> str:
    """``text`` as it can be quoted: of one that is too long, its end is not what anybody looks for."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def explain(error: BaseException) -> None:
    """Says what went wrong where nobody expected it: of the system's errors, which; of others, where."""
    if isinstance(error, OSError):
        warn(f"{error.strerror or error}{f': {short(str(error.filename))}' if error.filename else ''}")
    else:
        import traceback

        warn("".join(traceback.format_exception(error)).rstrip())


def attempt(work: Callable[[], object]) -> bool:
    """Whether ``work`` succeeds; says why where it does not."""
    try:
        work()
    except Leave as leaving:
        leaving.tell()
    except Exception as error:  # noqa: BLE001 - whatever it is: the caller has another way
        explain(error)
    else:
        return True
    return False
