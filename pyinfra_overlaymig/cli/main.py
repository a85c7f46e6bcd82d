"""The `overlaymig` program: collects command groups, turns errors into words and exit codes."""

from __future__ import annotations

import sys

import click

from pyinfra_overlaymig import __version__
from pyinfra_overlaymig.cli.diff import diff
from pyinfra_overlaymig.cli.graph import graph
from pyinfra_overlaymig.cli.lab import lab
from pyinfra_overlaymig.cli.state import state
from pyinfra_overlaymig.errors import OverlaymigError


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
    """Run the program: exit 0, or an error's own code, or 130 after an interrupt."""
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
    except OSError as error:
        _say(f"{error}", "put that right and run the same command again: it goes on from there")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted", "run the same command again: it goes on where this one ended")
        sys.exit(130)


def _say(message: str, hint: str) -> None:
    click.echo(f"{click.style('overlaymig:', fg='red', bold=True)} {message}", err=True)
    click.echo(f"  hint: {hint}", err=True)
