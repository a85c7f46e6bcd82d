"""The `overlaymig` program: collects command groups, turns errors into words and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import click

from pyinfra_overlaymig import __version__
from pyinfra_overlaymig.cli.diff import diff
from pyinfra_overlaymig.cli.graph import graph
from pyinfra_overlaymig.cli.lab import lab
from pyinfra_overlaymig.cli.state import state
from pyinfra_overlaymig.errors import OverlaymigError, in_words


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="overlaymig")
def overlaymig() -> None:
    """Transactional overlayfs migrations for machines, driven by pyinfra.

    \b
    Examples:
      overlaymig lab up -n 3
      overlaymig lab --help
      overlaymig graph deploys/migrations
      overlaymig diff lab-1 20240206-001_add_postgresql
    """


for command in (lab, graph, diff, state):
    overlaymig.add_command(command)


def main() -> None:
    """Run the program: exit 0, or an error's own code, 130 after an interrupt, 141 where nobody reads any more."""
    _open_what_is_closed()
    try:
        _run()
        sys.stdout.flush()
    except BrokenPipeError:
        _nobody_reads()
    except SystemExit as leaving:
        # What `head` does is a failure to rich, and to click, which puts something else in the place of the output.
        if isinstance(leaving.__context__, BrokenPipeError) or sys.stdout is not sys.__stdout__:
            _nobody_reads()
        raise


def _open_what_is_closed() -> None:
    """Where the caller closed one of them (`>&-`), Python has None, which cannot even be asked.

    The next file that is opened would get its number, and what we start would write there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is its own.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            stream = os.fdopen(number, mode, encoding="utf-8")
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _run() -> None:
    try:
        overlaymig(standalone_mode=False)
    except OverlaymigError as error:
        _say(f"{error}", error.hint)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _say(f"{what}{in_words(error)}", _remedy(error))
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted", "run the same command again: it goes on where this one ended")
        sys.exit(130)


def _nobody_reads() -> NoReturn:
    # What is still to be flushed at the end goes nowhere, and says nothing of it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with suppress(OSError):
                os.dup2(nowhere, stream.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "this user may not do that: use sudo, or another user"
    if isinstance(error, FileNotFoundError):
        return "correct its name, or install what is missing"
    return "put that right and run the same command again: it goes on from there"


def _say(message: str, hint: str) -> None:
    click.echo(f"{click.style('overlaymig:', fg='red', bold=True)} {message}", err=True)
    click.echo(f"  hint: {hint}", err=True)
