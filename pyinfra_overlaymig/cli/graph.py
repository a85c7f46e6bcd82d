"""`overlaymig graph`: shows a folder's graph, as a picture too; it only parses, prints and calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from pyinfra_overlaymig.errors import InvalidUsage, OverlaymigError
from pyinfra_overlaymig.migration.folder import load_all
from pyinfra_overlaymig.migration.graph import document, dot, text
from pyinfra_overlaymig.migration.ordering import order, with_dependencies

_PICTURES = ("svg", "png")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("deploys/migrations"))
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--format", "form", type=click.Choice(["text", "dot", *_PICTURES]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this file.")
def graph(folder: Path, ids: tuple[str, ...], form: str, as_json: bool, output: Path | None) -> None:
    """Show what the migrations of FOLDER depend on, and in which order their services start.

    FOLDER is deploys/migrations if it is not given. With IDs only these are shown, and all that
    they depend on. What no machine can have, as a circle or a conflict that cannot be avoided, is
    refused with file and line. An arrow leads from what depends to what it depends on: black
    between migrations, blue between services, dashed and red where migrations conflict. Pictures
    are drawn by dot of graphviz.

    \b
    Examples:
      overlaymig graph
      overlaymig graph deploys/migrations 20240206-001_add_postgresql
      overlaymig graph --format svg -o migrations.svg
      overlaymig graph --format dot | xdot -
      overlaymig graph --json | jq .start
    """
    if as_json and form != "text":
        raise InvalidUsage("--json and --format exclude each other", hint="give one of them")
    if form in _PICTURES and output is None and sys.stdout.isatty():
        raise InvalidUsage("a picture is nothing for a terminal", hint=f"write it to a file: -o migrations.{form}")
    known = load_all(folder)
    shown = with_dependencies(ids, known) if ids else order(known)
    if as_json:
        drawn = f"{json.dumps(document(shown), indent=2, ensure_ascii=False)}\n".encode()
    elif form == "text":
        drawn = "".join(f"{line}\n" for line in text(shown)).encode()
    else:
        drawn = dot(shown).encode()
    if form in _PICTURES:
        drawn = _picture(drawn, form)
    if output is None:
        sys.stdout.buffer.write(drawn)
    else:
        output.write_bytes(drawn)


def _picture(source: bytes, form: str) -> bytes:
    try:
        drawn = subprocess.run(["dot", f"-T{form}"], input=source, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise OverlaymigError(
            "a picture needs dot, which is not installed here",
            hint="install graphviz (as root: apt-get install graphviz), or use --format dot",
        ) from error
    if drawn.returncode:
        raise OverlaymigError(
            f"dot failed: {drawn.stderr.decode('utf-8', 'replace').strip()}", hint="look at --format dot"
        )
    return drawn.stdout
