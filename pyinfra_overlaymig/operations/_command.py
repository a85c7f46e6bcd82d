"""Commands of our own: one that streams what it does, and one that fails with a reason."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import pyinfra
from pyinfra import logger
from pyinfra.api import Host, QuoteString, State, StringCommand

from pyinfra_overlaymig.format.needs import Unfit
from pyinfra_overlaymig.format.paths import PROGRAM
from pyinfra_overlaymig.operations._connection import answers, in_a_line, keep_watch, over_a_new_one, say_lost
from pyinfra_overlaymig.operations._foreseen import foresee


class LiveCommand(StringCommand):
    """A command whose output appears while it runs, each line with its host before it."""

    when_lost: ClassVar[str] = "connection lost: run this again"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        connector_arguments.update(self.connector_arguments)
        keep_watch(host.connector)
        try:
            done, output = host.run_shell_command(
                self, print_output=True, print_input=state.print_input, **connector_arguments
            )
        except Exception as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                # Of `_timeout`, which pyinfra tells.
                raise
            # All others would end the run for all hosts.
            say_lost(host, f"{self.when_lost} ({in_a_line(error)})")
            return False, []
        # A connection that ends without an exit status looks like a command that failed.
        if not done and not answers(host):
            say_lost(host, self.when_lost)
        if done or state.print_output or not pyinfra.is_cli:
            return done, output
        # pyinfra prints the output of a failed command unless it knows that it was printed.
        return done, type(output)([])


class TransactionCommand(LiveCommand):
    """A command that the machine brings to an end by itself, whatever becomes of this program."""

    when_lost = "connection lost; the machine finishes or undoes it by itself: run this again to see"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        with _under_way(host):
            return super().execute(state, host, connector_arguments)


class ConfirmedCommand(TransactionCommand):
    """A transaction that the machine takes back unless a new connection says that it can still be reached.

    The command returns as soon as it awaits that, for ``within`` seconds; ``CONFIRM`` then has its outcome.
    """

    when_lost = "connection lost; the machine undoes it by itself unless it had ended: run this again to see"

    def __init__(self, *bits: str | StringCommand | QuoteString, within: int, **arguments: Any) -> None:
        super().__init__(*bits, **arguments)
        self.within = within

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        done, output = super().execute(state, host, connector_arguments)
        if not done:
            return done, output
        connector_arguments.pop("_stdin", None)
        # One of its own: that the connection which was there goes on says nothing about the next one.
        with _under_way(host):
            found = over_a_new_one(state, host, CONFIRM, self.within, connector_arguments)
        return bool(found and found[0]), output


class AwaitedCommand(LiveCommand):
    """The confirmation of what another run left behind, which was killed while the machine waited for it.

    It succeeds where that was taken back meanwhile, too: the machine can be reached, and its status says how it is.
    """

    def __init__(self) -> None:
        super().__init__(PROGRAM, "confirm")

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        # This run's own connection may be older than the switch that it would speak for.
        found = over_a_new_one(state, host, CONFIRM, CONFIRM_WITHIN, connector_arguments)
        return found is not None, found[1] if found else []


CONFIRM: Final = StringCommand(PROGRAM, "confirm")
CONFIRM_WITHIN: Final = 60
"""Seconds that a machine waits for the new connection."""

_at_work: set[str] = set()


@contextmanager
def _under_way(host: Host) -> Iterator[None]:
    _at_work.add(host.name)
    try:
        yield
    except Exception:
        _at_work.discard(host.name)
        raise
    # No `finally`: what ends this program, as Ctrl-C does, leaves the machine at work.
    _at_work.discard(host.name)


@atexit.register
def _say_who_goes_on() -> None:
    if _at_work:
        names = ", ".join(sorted(_at_work))
        logger.warning(f"{names}: the machine goes on, and finishes or undoes it by itself: run this again to see")


def transaction(*words: str | StringCommand | QuoteString, confirm: int, **arguments: Any) -> TransactionCommand:
    """One that has to be confirmed within so many seconds, or, with 0, not at all."""
    if confirm:
        return ConfirmedCommand(*words, within=confirm, **arguments)
    return TransactionCommand(*words, **arguments)


def failure(message: str, hint: str) -> StringCommand:
    """A command that fails on this host alone, saying why, here and beforehand; an exception would stop every host."""
    foresee(message, hint)
    return StringCommand("printf '%s\\n  hint: %s\\n'", QuoteString(message), QuoteString(hint), ">&2; exit 1")


def no_runner(host: Host, operation: str) -> Unfit:
    """Why an operation cannot be done where nobody has prepared the machine."""
    return Unfit(f"{host.name} has no runner", f"put machine_prepared before {operation}")


def status_unknown(host: Host) -> StringCommand:
    """The failure of an operation that could not learn anything about its host."""
    return failure(
        f"the status of {host.name} is unknown, so nothing is done to it",
        "see the error of the fact MachineStatus above; is it reachable, and are you root?",
    )
