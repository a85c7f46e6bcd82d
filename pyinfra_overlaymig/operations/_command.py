"""Commands of our own: one that streams what it does, and one that fails with a reason."""

from __future__ import annotations

import atexit
from typing import Any, ClassVar, Final

import pyinfra
from pyinfra import logger
from pyinfra.api import Host, QuoteString, State, StringCommand

from pyinfra_overlaymig.format.paths import PROGRAM


class LiveCommand(StringCommand):
    """A command whose output appears while it runs, each line with its host before it."""

    when_lost: ClassVar[str] = "connection lost: run this again"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        connector_arguments.update(self.connector_arguments)
        try:
            done, output = host.run_shell_command(
                self, print_output=True, print_input=state.print_input, **connector_arguments
            )
            # A connection that ends without an exit status looks like a command that failed.
            lost = not done and not _answers(host)
        except Exception:
            _say_lost(host, self.when_lost)
            raise
        if lost:
            _say_lost(host, self.when_lost)
        if done or state.print_output or not pyinfra.is_cli:
            return done, output
        # pyinfra prints the output of a failed command unless it knows that it was printed.
        return done, type(output)([])


class TransactionCommand(LiveCommand):
    """A command that the machine brings to an end by itself, whatever becomes of this program."""

    when_lost = "connection lost; the machine finishes or undoes it by itself: run this again to see"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        _under_way.add(host.name)
        # No `finally`: what ends this program, as Ctrl-C does, leaves the machine at work.
        try:
            result = super().execute(state, host, connector_arguments)
        except Exception:
            _under_way.discard(host.name)
            raise
        _under_way.discard(host.name)
        return result


class ConfirmedCommand(TransactionCommand):
    """A transaction that the machine takes back unless a new connection says that it can still be reached.

    The command returns as soon as it awaits that; ``CONFIRM`` then has its outcome.
    """

    when_lost = "connection lost; the machine undoes it by itself unless it had ended: run this again to see"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, Any]:
        done, output = super().execute(state, host, connector_arguments)
        if not done:
            return done, output
        connector_arguments.pop("_stdin", None)
        # One of its own: that the connection which was there goes on says nothing about the next one.
        connector = type(host.connector)(state, host)
        try:
            connector.connect()
        except Exception:
            _say_lost(host, "no new connection after the switch: the machine takes it back by itself")
            raise
        done, _ = connector.run_shell_command(
            CONFIRM, print_output=True, print_input=state.print_input, **connector_arguments
        )
        return done, output


CONFIRM: Final = StringCommand(PROGRAM, "confirm")
CONFIRM_WITHIN: Final = 60
"""Seconds that a machine waits for the new connection."""

_under_way: set[str] = set()


@atexit.register
def _say_who_goes_on() -> None:
    if _under_way:
        names = ", ".join(sorted(_under_way))
        logger.warning(f"{names}: the machine goes on, and finishes or undoes it by itself: run this again to see")


def _answers(host: Host) -> bool:
    try:
        return host.run_shell_command(StringCommand("true"))[0]
    except Exception:  # noqa: BLE001 - whatever the connector raises, there is no answer
        return False


def _say_lost(host: Host, message: str) -> None:
    host.log_styled(message, fg="red", log_func=logger.error)


def failure(message: str, hint: str) -> StringCommand:
    """A command that fails on this host alone, saying why; an exception would stop every host."""
    return StringCommand("printf '%s\\n  hint: %s\\n'", QuoteString(message), QuoteString(hint), ">&2; exit 1")


def status_unknown(host: Host) -> StringCommand:
    """The failure of an operation that could not learn anything about its host."""
    return failure(
        f"the status of {host.name} is unknown, so nothing is done to it",
        "see the error of the fact MachineStatus above; is it reachable, and are you root?",
    )
